"""What a graph reads and builds is known before ONNX Runtime sees it, whichever version that is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from support.tiny_bundle import SIZE, tiny_config, tiny_files

import clipita
from clipita.backends.graph_check import check_graph
from clipita.bundles import bundle as bundles
from clipita.bundles.bundle import EMBEDDED, read_bundle, write_bundle
from clipita.convert.graph.contents import graph_contents
from clipita.errors import BackendError, CheckpointError

SECRET = bytes(range(256)) * 96  # as many numbers as the image tower's projection has


def damaged_bundle(folder: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    """A bundle whose image graph is changed, and whose hashes are right all the same."""
    files = tiny_files()
    model = onnx.load_from_string(files["image.onnx"])
    change(model)
    write_bundle(folder, config=tiny_config(), files={**files, "image.onnx": model.SerializeToString()})
    return folder


def answer(folder: Path) -> np.ndarray:
    return clipita.load(folder).encode_image(np.zeros((SIZE, SIZE, 3), np.uint8))


def move(location: str, *, as_well: bool = False) -> Callable[[onnx.ModelProto], object]:
    def change(model: onnx.ModelProto) -> None:
        (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == "image")
        if as_well:
            tensor.external_data.add(key="location", value=location)
        else:
            tensor.external_data[0].value = location
            tensor.external_data[1].value = "0"

    return change


@pytest.mark.parametrize("as_well", [False, True])
@pytest.mark.parametrize(
    "location",
    ["../secret.bin", "{}/secret.bin", "secret.bin", "link.bin", "*/_ORT_MEM_ADDR_/*", "clipita.json", "",
     "./weights.safetensors", "tiny/../weights.safetensors", "weights.safetensors/"],
)  # fmt: skip
def test_a_graph_reads_the_files_of_its_bundle_and_no_others(tmp_path: Path, location: str, as_well: bool) -> None:
    (tmp_path / "secret.bin").write_bytes(SECRET)
    folder = damaged_bundle(tmp_path / "tiny", move(location.format(tmp_path), as_well=as_well))
    (folder / "secret.bin").write_bytes(SECRET)  # in the folder, and without a hash
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(CheckpointError, match=r"image.onnx' keeps weights in .*which is no file of this bundle\. Not"):
        answer(folder)


def inner(make: Callable[[TensorProto], onnx.AttributeProto]) -> Callable[[onnx.ModelProto], object]:
    """A node, never run, with an attribute that holds a tensor of a file outside."""

    def change(model: onnx.ModelProto) -> None:
        tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="/etc/hostname")
        node = helper.make_node("Constant", [], ["hidden"])
        node.attribute.append(make(tensor))
        model.graph.node.insert(0, node)

    return change


def graph_of(tensor: TensorProto) -> onnx.GraphProto:
    return helper.make_graph([], "g", [], [], [tensor])


@pytest.mark.parametrize(
    "make",
    [
        lambda tensor: helper.make_attribute("value", tensor),
        lambda tensor: helper.make_attribute("value", [tensor]),
        lambda tensor: helper.make_attribute("value", graph_of(tensor)),
        lambda tensor: helper.make_attribute("value", [graph_of(tensor)]),
        lambda tensor: AttributeProto(
            name="value",
            type=AttributeProto.SPARSE_TENSOR,
            sparse_tensor=onnx.SparseTensorProto(values=tensor, dims=[8]),
        ),
    ],
    ids=["tensor", "tensors", "graph", "graphs", "sparse"],
)
def test_weights_are_found_wherever_a_graph_has_them(
    tmp_path: Path, make: Callable[[TensorProto], onnx.AttributeProto]
) -> None:
    folder = damaged_bundle(tmp_path / "tiny", inner(make))
    with pytest.raises(CheckpointError, match="keeps weights in '/etc/hostname', which is no file of this bundle"):
        answer(folder)


def test_weights_beyond_their_file_are_refused(tmp_path: Path) -> None:
    for key, value in (("offset", "99999999"), ("offset", "-1"), ("length", "99999999"), ("offset", "1e3")):

        def change(model: onnx.ModelProto, key: str = key, value: str = value) -> None:
            (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == "image")
            next(entry for entry in tensor.external_data if entry.key == key).value = value

        with pytest.raises(CheckpointError, match=r"keeps weights beyond the [\d,]+ bytes of 'weights.safetensors'"):
            answer(damaged_bundle(tmp_path / "tiny", change))


def building(operator: str, *constants: list[int], inputs: int = 0, **attributes: object) -> onnx.NodeProto:
    names = ["pixels"] * inputs + [f"constant_{index}" for index in range(len(constants))]
    return helper.make_node(operator, names, ["large"], **attributes)


@pytest.mark.parametrize(
    ("operator", "inputs", "constants", "attributes"),
    [
        ("ConstantOfShape", 0, [[1 << 31]], {}),
        ("ConstantOfShape", 0, [[1 << 10, 1 << 10, 1 << 10]], {}),
        ("Expand", 1, [[1 << 40]], {}),
        ("Tile", 1, [[1 << 8, 1 << 8, 1 << 8, 1 << 8]], {}),
        ("Range", 0, [[0], [1 << 40], [2]], {}),
        ("Pad", 1, [[0, 0, 1 << 30, 0]], {}),
        ("OneHot", 1, [[1 << 33]], {}),
        ("Resize", 3, [[1, 3, 1 << 20, 1 << 20]], {}),
        ("RandomNormal", 0, [], {"shape": [1 << 20, 1 << 20]}),
    ],
)
@pytest.mark.parametrize("as_nodes", [False, True])
def test_tensors_that_a_graph_builds_from_constants_have_bounds(
    tmp_path: Path,
    operator: str,
    inputs: int,
    constants: list[list[int]],
    attributes: dict[str, object],
    as_nodes: bool,
) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node.insert(0, building(operator, *constants, inputs=inputs, **attributes))
        for index, values in enumerate(constants):
            tensor = numpy_helper.from_array(np.array(values, np.int64), f"constant_{index}")
            if as_nodes:
                model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
            else:
                model.graph.initializer.append(tensor)

    folder = damaged_bundle(tmp_path / "tiny", change)
    with pytest.raises(CheckpointError, match=rf"builds tensors of [\d,]+ elements out of constants \({operator}\)"):
        answer(folder)


def test_a_sparse_tensor_is_as_large_as_it_will_be(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
        indices = numpy_helper.from_array(np.zeros(1, np.int64), "sparse_indices")
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 40]))

    with pytest.raises(CheckpointError, match=r"builds tensors of .* \(a sparse tensor\)"):
        answer(damaged_bundle(tmp_path / "tiny", change))


def test_a_graph_of_no_weights_is_not_read_without_end(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(65 << 20)
    write_bundle(tiny_bundle, config=tiny_config(), files=tiny_files())
    (tiny_bundle / "text.onnx").unlink()
    (tmp_path / "large.onnx").rename(tiny_bundle / "text.onnx")
    with pytest.raises(CheckpointError, match=r"text.onnx' has 68,157,440 bytes, and a graph beside its weights has"):
        read_bundle(tiny_bundle)
    with pytest.raises(CheckpointError, match=r"its structure has more than 1,048,576 fields"):
        graph_contents(memoryview(b"\x08\x01" * (1 << 20 | 1)))


@pytest.mark.parametrize("name", ["image.ort", "image", "image.onnx.ort"])
def test_a_graph_is_in_the_format_that_is_looked_at(tmp_path: Path, name: str) -> None:
    files = tiny_files()
    config = tiny_config(precisions={"fp32": bundles.Graphs(name, "text.onnx")})
    with pytest.raises(CheckpointError, match=r"must end with '.onnx'"):
        write_bundle(tmp_path / "tiny", config=config, files={name: files.pop("image.onnx"), **files})


def test_the_embedded_model_is_what_the_check_lets_pass(tmp_path: Path) -> None:
    """It is not checked when it is loaded, which would take longer than its tokenizer does."""
    import shutil

    for folder in EMBEDDED.iterdir():
        bundle = read_bundle(shutil.copytree(folder, tmp_path / folder.name))
        for graphs in bundle.config.precisions.values():
            check_graph(bundle, graphs.image)
            check_graph(bundle, graphs.text)
            found = graph_contents(memoryview(bundle.path(graphs.text).read_bytes()))
            assert {data.location for data in found.external} == {"weights.safetensors"}
            assert len(found.external) > 100


def test_a_damaged_graph_is_said_plainly(tmp_path: Path) -> None:
    files = {**tiny_files(), "image.onnx": b"\x3a\xff\x01damaged"}
    write_bundle(tmp_path / "tiny", config=tiny_config(), files=files)
    with pytest.raises(BackendError, match=r"cannot load .*image.onnx': 255 bytes are said to follow, where 7 are"):
        answer(tmp_path / "tiny")
