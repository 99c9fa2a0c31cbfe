"""Where an ONNX model says that its weights lie: file names in a file, which may name any other on the disk."""

from collections.abc import Iterator
from pathlib import Path

from clipita.bundle import check_inside
from clipita.convert.readers.mapped import MappedFile, reading
from clipita.convert.wire import bytes_of, fields, text
from clipita.errors import CheckpointError

# Field numbers of onnx.proto, by message: those that lead to a tensor, and the message that each holds.
_LEADS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_MAX_DEPTH = 64  # an If in a Loop in a function takes a dozen


def external_data_inside(model_path: Path, folder: Path) -> list[Path]:
    """The files that the model's tensors lie in, once it is sure that all of them are inside `folder`.

    Only the structure of the model is walked over: no tensor is read, and no other file is opened.

    Raises:
        CheckpointError: the model is damaged, a location leads out of the folder, or no file is there.
    """
    with reading(model_path, "an ONNX model"):
        locations = sorted(set(_locations(memoryview(MappedFile(model_path).data), "Model", 0)))
    paths: list[Path] = []
    for location in locations:
        path = model_path.parent / location
        # A location is relative to the model; as a path it must not leave the folder, whatever links it goes through.
        odd = not location or any(sign in location for sign in "\\\0")
        if odd or Path(location).is_absolute() or ".." in Path(location).parts:
            raise CheckpointError(
                f"'{model_path}' keeps weights in {location[:200]!r}, outside its folder. Nothing of it was read."
            )
        check_inside(path, folder)
        if not path.is_file():
            raise CheckpointError(
                f"'{model_path}' keeps weights in {location[:200]!r}, which is not there. Download all of it."
            )
        paths.append(path)
    return paths


def _locations(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise CheckpointError(f"its graphs nest deeper than {_MAX_DEPTH} levels")
    leads = _LEADS[kind]
    for number, value in fields(message):
        if number not in leads:
            continue
        if leads[number] != "Entry":
            yield from _locations(bytes_of(value), leads[number], depth + 1)
            continue
        entry = dict(fields(bytes_of(value)))  # StringStringEntryProto: 1 the key, 2 the value
        if text(entry.get(1, memoryview(b""))) == "location":
            yield text(entry.get(2, memoryview(b"")))
