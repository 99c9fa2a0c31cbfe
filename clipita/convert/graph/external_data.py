"""Where an ONNX model says that its weights lie: file names in a file, which may name any other on the disk."""

from pathlib import Path

from clipita.bundles.bundle import check_inside
from clipita.convert.graph.contents import graph_contents
from clipita.convert.readers.mapped import MappedFile, reading
from clipita.errors import CheckpointError


def external_data_inside(model_path: Path, folder: Path) -> list[Path]:
    """The files that the model's tensors lie in, once it is sure that all of them are inside `folder`.

    Only the structure of the model is walked over: no tensor is read, and no other file is opened.

    Raises:
        CheckpointError: the model is damaged, a location leads out of the folder, or no file is there.
    """
    with reading(model_path, "an ONNX model"):
        contents = graph_contents(memoryview(MappedFile(model_path).data))
        locations = sorted({data.location for data in contents.external})
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
