"""The commands about models: `models`, `info` and `convert`."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from support.tiny import make_tiny_bundle

import clipita
from clipita.bundles.bundle import read_bundle
from clipita.cli.compare import compare, loss, read_pictures
from clipita.cli.main import main
from clipita.convert.cache import cache_folder
from clipita.errors import ClipitaError
from clipita.loading.known import KNOWN, restriction


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 bundle that is not changed."""
    folder = tmp_path_factory.mktemp("models") / "minuscolo"
    make_tiny_bundle(folder, "float32")
    return folder


@pytest.fixture
def bundle(shared: Path) -> str:
    return str(shared)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    assert cache_folder(None) == tmp_path / "home" / "clipita"
    return tmp_path / "home"


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two labels with three pictures each."""
    random = np.random.default_rng(0)
    for label in ("cane", "gatto"):
        (tmp_path / "foto" / label).mkdir(parents=True)
        for index in range(3):
            pixels = random.integers(0, 256, (50, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "foto" / label / f"{index}.png")
    return tmp_path / "foto"


def test_models_lists_what_is_known_with_its_licence() -> None:
    listed = json.loads(run("models", "--json").stdout)["models"]
    assert [model["name"] for model in listed] == ["clipita-mini", *(known.name for known in KNOWN)]
    assert {model["name"]: model["license"] for model in listed}["clip-italian/clip-italian"] == "gpl-3.0"
    lines = run("models").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [model["name"] for model in listed]


@pytest.mark.parametrize(
    ("license", "surprises"),
    [
        ("gpl-3.0", True),
        ("GPL-2.0-only", True),
        ("agpl-3.0", True),
        ("cc-by-nc-4.0", True),
        ("cc-by-nc-sa-4.0", True),
        ("Non-Commercial research", True),
        ("lgpl-3.0", False),
        ("mit", False),
        ("apache-2.0", False),
        ("unknown", False),
    ],
)
def test_licences_that_surprise(license: str, surprises: bool) -> None:
    assert (restriction(license) is not None) == surprises


def test_info_takes_a_name_and_says_what_the_towers_are(bundle: str) -> None:
    fields = json.loads(run("info", bundle, "--json").stdout)
    assert fields["layout"] == "clipita bundle"
    assert fields["text_tower"].startswith("bert, 137,536 parameters, vocabulary 64, width 96, layers 2, heads 3")
    assert fields["image_tower"].startswith("efficientnet-lite, ")
    assert fields["tokenizer"].startswith("max_tokens 32, prefix 'query: '")
    assert fields == json.loads(run("info", "--model", bundle, "--json").stdout)


def test_convert_to_int8_says_what_it_costs(bundle: str, photos: Path, home: Path) -> None:
    # A random model: one of six pictures may well get another label, which --max-loss would refuse.
    asked = ("convert", bundle, "--precision", "int8", "--check", photos, "--accept-loss")
    report = json.loads(run(*asked, "--json").stdout)
    small = clipita.load(bundle, precision="int8")
    assert report["fingerprint"] == small.fingerprint
    assert Path(report["bundle"]).is_relative_to(home)
    assert report["samples"] == read_bundle(report["bundle"]).config.fidelity
    found = report[str(photos)]
    pictures = sorted(photos.rglob("*.png"))
    full = clipita.load(bundle)
    cosines = (full.encode_image(pictures) * small.encode_image(pictures)).sum(-1)
    assert found["images"] == 6
    assert found["image_cosine"] == pytest.approx(cosines.mean(), abs=2e-6)
    assert found["image_cosine_min"] == pytest.approx(cosines.min(), abs=2e-6)
    best = [scores[0].label for scores in full.zero_shot(pictures, ["cane", "gatto"])]
    right = np.mean([label == path.parent.name for label, path in zip(best, pictures, strict=True)])
    assert found["accuracy"] == pytest.approx(right)
    text = run(*asked).stdout
    assert "samples" in text
    assert "other_accuracy" in text


def test_a_check_says_what_is_no_picture_of_its_set(bundle: str, photos: Path) -> None:
    asked = ("convert", bundle, "--precision", "int8", "--check", photos, "--accept-loss")
    alone = json.loads(run(*asked, "--json").stdout)[str(photos)]
    (photos / "@eaDir" / "0.png").mkdir(parents=True)
    shutil.copy(photos / "cane" / "0.png", photos / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB_M.png")
    (photos / "gatto" / "IMG_1.psd").write_bytes(b"8BPS")
    result = run(*asked, "--json")
    assert json.loads(result.stdout)[str(photos)] == alone  # nor is a bin a label
    assert result.stderr == (
        f"{photos}: Left aside: 1 in a format that is not read (.psd): export as JPEG or PNG; 1 folder of thumbnails, "
        "snapshots or deleted files (@eaDir).\n"
    )


def test_an_empty_hf_home_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", "")  # what it makes of HF_HOME=
    assert cache_folder(None) == Path(constants.default_home) / "huggingface" / "clipita"


def test_convert_refuses_a_loss_above_the_bound_unless_it_is_accepted(bundle: str, home: Path, tmp_path: Path) -> None:
    options = ("convert", bundle, "--precision", "int8", "--max-loss", 1e-6)
    for where in ((), ("-o", tmp_path / "nuovo")):
        result = run(*options, *where)
        assert result.exit_code == 2
        assert "cosine on samples, more than --max-loss 1e-06. Nothing was kept" in result.stderr
    assert not (tmp_path / "nuovo").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert not list(home.rglob("clipita.json"))
    assert run(*options, "-o", tmp_path / "nuovo", "--accept-loss").exit_code == 0
    assert clipita.load(tmp_path / "nuovo").precision == "int8"


def test_convert_writes_a_bundle_that_needs_no_other(bundle: str, tmp_path: Path) -> None:
    copied = shutil.copytree(bundle, tmp_path / "originale")
    expected = clipita.load(copied).encode_text("un gatto")
    assert run("convert", copied, "-o", tmp_path / "intero").exit_code == 0
    assert run("convert", copied, "-o", tmp_path / "piccolo", "--precision", "int8").exit_code == 0
    assert run("convert", copied, "-o", tmp_path / "altrove", "--portable").exit_code == 0
    shutil.rmtree(copied)
    for name, tolerance in {"intero": 0, "altrove": 1e-5, "piccolo": 0.1}.items():
        np.testing.assert_allclose(clipita.load(tmp_path / name).encode_text("un gatto"), expected, atol=tolerance)
    for graph in ("image.onnx", "text.onnx"):
        nodes = onnx.load(tmp_path / "altrove" / graph, load_external_data=False).graph.node
        assert {node.domain for node in nodes} == {""}


def test_portable_int8_is_the_same_on_standard_operators(bundle: str, tmp_path: Path) -> None:
    for name, options in {"a": [], "b": ["--portable"]}.items():
        assert run("convert", bundle, "-o", tmp_path / name, "--precision", "int8", *options).exit_code == 0
    assert {node.domain for node in onnx.load(tmp_path / "b" / "text.onnx", load_external_data=False).graph.node} == {
        ""
    }
    a, b = (clipita.load(tmp_path / name) for name in ("a", "b"))
    assert float(a.encode_text("un gatto") @ b.encode_text("un gatto")) > 0.999


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--portable"], "needs --output"),
        (["--check", "{photos}"], "is for --precision int8"),
        (["-o", "{photos}"], "is not empty. Name a new folder"),
        (["--precision", "int4"], "'int4' is not one of"),
        (["--precision", "int8", "--max-loss", "nan"], "nan is not a loss of a cosine or a score, from 0 to 2"),
        (["--precision", "int8", "--max-loss", "-1"], "-1.0 is not a loss of a cosine or a score"),
        (["--precision", "int8", "--check", "{photos}/cane"], "is no set to check on"),
    ],
)
def test_what_convert_refuses(bundle: str, photos: Path, arguments: list[str], message: str) -> None:
    result = run("convert", bundle, *(argument.replace("{photos}", str(photos)) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize("options", [(), ("--precision", "int8")])
def test_a_bundle_without_float32_cannot_be_converted(options: tuple[str, ...]) -> None:
    result = run("convert", "clipita-mini", *options)
    assert result.exit_code == 2
    assert "is a bundle already, and has no float32 weights to begin with, only int8" in result.stderr


def test_a_set_with_captions_is_searched(bundle: str, photos: Path) -> None:
    pictures = sorted(photos.rglob("*.png"))
    keys = [str(path.relative_to(photos)) for path in pictures]
    lines = [{"image_path": key, "captions": [f"una {i}", f"un {i} gatto"]} for i, key in enumerate(keys)]
    (photos / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    model = clipita.load(bundle)
    found = compare(model, model, read_pictures(photos))
    captions = [caption for line in lines for caption in line["captions"]]
    best = (model.encode_text(captions) @ model.encode_image(pictures).T).argmax(1)
    assert found["recall"] == found["other_recall"] == pytest.approx(float(np.mean(best == np.repeat(range(6), 2))))
    assert found["same"] == 1
    assert found["text_cosine"] == pytest.approx(1, abs=1e-5)
    (photos / "captions.jsonl").write_text('{"image_path": "x"}\n')
    with pytest.raises(ClipitaError, match=r"line 1 of .*captions.jsonl' must be an object with 'image_path' and"):
        compare(model, model, read_pictures(photos))


def test_the_loss_is_the_largest_of_all() -> None:
    found: dict[str, float] = {"image_cosine": 0.99, "text_cosine": 0.98, "text_cosine_min": 0.5}
    assert loss(found) == ("text_cosine", pytest.approx(0.02))
    assert loss(found | {"accuracy": 0.9, "other_accuracy": 0.8}) == ("accuracy", pytest.approx(0.1))
