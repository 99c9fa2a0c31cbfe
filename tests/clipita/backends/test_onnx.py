"""ONNX Runtime under a tiny bundle: results, settings, and refusals."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from safetensors.numpy import load
from support.tiny_bundle import EMBED_DIM, SIZE, tiny_config, tiny_files

import clipita.backends.onnx
from clipita.backends.onnx import OnnxBackend, images_per_run, let_threads_sleep, session_options
from clipita.bundles.bundle import read_bundle, write_bundle
from clipita.errors import BackendError, CheckpointError
from clipita.system.cpus import usable_cpus


@pytest.fixture(scope="module")
def backend(shared_bundle: Path) -> OnnxBackend:
    return OnnxBackend(read_bundle(shared_bundle), precision="fp32")


@pytest.mark.parametrize(
    ("kind", "image_size", "images"),
    [("efficientnet-lite", 224, 4), ("efficientnet-lite", 256, 3), ("efficientnet-lite", 600, 1), ("vit", 256, 8)],
)
def test_how_many_images_a_run_takes(kind: str, image_size: int, images: int) -> None:
    assert images_per_run(kind, image_size) == images


def test_a_batch_is_what_its_images_are_alone(backend: OnnxBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_images_per_run", 4)
    pixels = np.random.default_rng(0).integers(0, 256, (21, SIZE, SIZE, 3), dtype=np.uint8)
    alone = np.concatenate([backend.encode_pixels(pixels[index : index + 1]) for index in range(21)])
    np.testing.assert_allclose(backend.encode_pixels(pixels), alone, atol=1e-6)
    assert backend.encode_pixels(pixels[:0]).shape == (0, EMBED_DIM)


_RESIDENT = """
import re
from pathlib import Path
import numpy as np
import onnx
import clipita
def resident():
    return int(re.search(r"VmRSS:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1000
model, image = clipita.load(), np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
model.encode_image(image)
model.encode_text([f"un gatto che dorme sul divano numero {number}" for number in range(33)])
print(resident())
for _ in range(2):
    model.encode_image([image] * 256, batch_size=256)
    print(resident())
    model.encode_text([f"un gatto che dorme sul divano numero {number}" for number in range(256)], batch_size=256)
    print(resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_comes_back_after_large_batches() -> None:
    done = subprocess.run([sys.executable, "-c", _RESIDENT], capture_output=True, text=True, check=True)
    before, *after = map(float, done.stdout.split())
    assert len(after) == 4
    assert max(after) < before + 10  # the images are 38 MB; an arena kept 1,500 of such batches


def test_both_towers_give_unit_vectors(backend: OnnxBackend) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    images = backend.encode_pixels(pixels)
    texts = backend.encode_tokens(np.array([[1, 5, 2], [1, 2, 0]]), np.array([[1, 1, 1], [1, 1, 0]]))
    for embeddings, rows in ((images, 3), (texts, 2)):
        assert embeddings.shape == (rows, EMBED_DIM)
        assert embeddings.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)


def test_callers_at_one_time_get_what_each_gets_alone(
    shared_bundle: Path, backend: OnnxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = OnnxBackend(read_bundle(shared_bundle), precision="fp32", threads=4)
    assert together.text_runs == 4
    threads_of_sessions: list[int] = []
    options = clipita.backends.onnx.session_options
    monkeypatch.setattr(
        "clipita.backends.onnx.session_options", lambda threads: threads_of_sessions.append(threads) or options(threads)
    )
    rng, meeting = np.random.default_rng(0), threading.Barrier(4)
    ids = rng.integers(1, 6, (4, 25, 3, 7))

    def embed(texts: np.ndarray) -> list[np.ndarray]:
        meeting.wait()
        return [together.encode_tokens(some, np.ones_like(some)) for some in texts]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(embed, ids))
    assert sorted(threads_of_sessions) == [1, 4]  # all CPUs for who is alone, one for each of the others
    for texts, embeddings in zip(ids, found, strict=True):
        alone = [backend.encode_tokens(some, np.ones_like(some)) for some in texts]
        np.testing.assert_allclose(embeddings, alone, atol=1e-6)


def test_a_large_text_tower_is_not_loaded_twice(shared_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipita.backends.onnx._LARGEST_TWICE", 10)
    assert OnnxBackend(read_bundle(shared_bundle), precision="fp32", threads=4).text_runs == 1


def test_a_tower_is_loaded_when_it_is_first_used(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny", config=tiny_config(), files={**tiny_files(), "text.onnx": b"no graph"})
    backend = OnnxBackend(bundle, precision="fp32")
    backend.encode_pixels(np.zeros((1, SIZE, SIZE, 3), np.uint8))
    with pytest.raises(BackendError, match=r"ONNX Runtime cannot load .*text.onnx': .*"):
        backend.encode_tokens(np.ones((1, 3), np.int64), np.ones((1, 3), np.int64))


def test_settings(shared_bundle: Path, backend: OnnxBackend) -> None:
    assert backend.threads == usable_cpus()
    assert backend.providers == ("CPUExecutionProvider",)
    assert OnnxBackend(read_bundle(shared_bundle), precision="fp32", threads=1).threads == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"providers": ["CUDAExecutionProvider"]}, "no provider 'CUDAExecutionProvider' here; it has .*CPUExecution"),
        ({"providers": ["CPUExecutionProvidr"]}, r"Did you mean 'CPUExecutionProvider'\?"),
        ({"providers": "CPUExecutionProvider"}, "providers must be a list .*, not 'CPUExecutionProvider'"),
        ({"providers": []}, r"providers must be a list .*, not \[\]"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_had_is_refused(shared_bundle: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        OnnxBackend(read_bundle(shared_bundle), precision="fp32", **options)  # type: ignore[arg-type]


def test_a_provider_that_does_not_start_is_no_silent_cpu(shared_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda, cpu])
    backend = OnnxBackend(read_bundle(shared_bundle), precision="fp32", providers=[cuda])
    with (
        pytest.warns(UserWarning, match=cuda),
        pytest.raises(BackendError, match=f"could not start {cuda}; it would run on {cpu}"),
    ):
        backend.encode_pixels(np.zeros((1, SIZE, SIZE, 3), np.uint8))


def test_a_failed_run_says_on_what(backend: OnnxBackend) -> None:
    with pytest.raises(BackendError, match=r"failed to run .*image.onnx' on {'pixels': \(1, 2, 2, 3\)}"):
        backend.encode_pixels(np.zeros((1, 2, 2, 3), np.uint8))


def test_graphs_of_another_width_are_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny", config=tiny_config(embed_dim=64), files=tiny_files())
    with pytest.raises(CheckpointError, match=r"gives embeddings of shape \(1, 32\), but .* they are 64 wide"):
        OnnxBackend(bundle, precision="fp32").encode_pixels(np.zeros((1, SIZE, SIZE, 3), np.uint8))


def cgroup(root: Path, text: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(text)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("text", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        ("0::/host/path/not/here\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {}, 64),
        ("3:cpu,cpuacct:/x\n0::/\n", {"cpu/x/cpu.cfs_quota_us": "200000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 2),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ("0::/\n", {"cpu.max": "nonsense"}, 64),
    ],
)
def test_threads_respect_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert usable_cpus(cgroup(tmp_path, text, files)) == expected


def test_threads_respect_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert usable_cpus(tmp_path) == 2


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_no_number_is_no_embedding(tmp_path: Path, number: float) -> None:
    files = tiny_files()
    weights = load(files["weights.safetensors"])
    weights["text"][5] = number  # of one word alone
    damaged = bytearray(files["weights.safetensors"])
    at = damaged.index(load(files["weights.safetensors"])["text"].tobytes())
    damaged[at : at + weights["text"].nbytes] = weights["text"].tobytes()
    files["weights.safetensors"] = bytes(damaged)
    backend = OnnxBackend(write_bundle(tmp_path / "tiny", config=tiny_config(), files=files), precision="fp32")
    ids, mask = np.array([[6, 7], [5, 8], [9, 5]]), np.ones((3, 2), np.int64)
    assert np.isfinite(backend.encode_tokens(ids[:1], mask[:1])).all()
    with pytest.raises(CheckpointError, match=r"'tiny' \(.*text.onnx'\) gives numbers that are not .*input 2 of"):
        backend.encode_tokens(ids, mask)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([("Cast", {"to": TensorProto.DOUBLE})], "gives float64, where embeddings of float32 are expected"),
        ([("Cast", {"to": TensorProto.STRING})], "gives object, where embeddings of float32 are expected"),
        ([("SequenceConstruct", {})], "gives list, where embeddings of float32 are expected"),
        ([("ReduceMax", {})], r"gives embeddings of shape \(1, 1\), but the bundle says that they are 32 wide"),
    ],
)
def test_what_a_graph_gives_is_embeddings(
    tmp_path: Path, nodes: list[tuple[str, dict[str, int]]], message: str
) -> None:
    files = tiny_files()
    model = onnx.load_from_string(files["image.onnx"])
    name = model.graph.output[0].name
    for index, (operator, attributes) in enumerate(nodes):
        model.graph.node.append(onnx.helper.make_node(operator, [name], [f"odd_{index}"], **attributes))
        name = f"odd_{index}"
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name=name))
    bundle = write_bundle(
        tmp_path / "tiny", config=tiny_config(), files={**files, "image.onnx": model.SerializeToString()}
    )
    with pytest.raises(CheckpointError, match=message):
        OnnxBackend(bundle, precision="fp32").encode_pixels(np.full((1, SIZE, SIZE, 3), 9, np.uint8))


def test_threads_spin_while_they_wait_unless_others_have_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipita.backends.onnx._may_spin", True)
    for expected in ("1", "0"):
        assert session_options().get_session_config_entry("session.intra_op.allow_spinning") == expected
        let_threads_sleep()
