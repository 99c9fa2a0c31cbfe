"""Find the files that an ONNX model keeps its weights in: a model may name any file of the disk."""

from pathlib import Path

from clipita.bundles.bundle import check_inside
from clipita.convert.graph.contents import graph_contents
from clipita.convert.readers.mapped import MappedFile, reading
from clipita.errors import CheckpointError


def external_data_inside(model_path: Path, folder: Path) -> list[Path]:
    """Return the files of a model's tensors, or refuse the model if one of them is outside `folder`.

    Only the structure of the model is read: no tensor, and no other file.

    Raises:
        CheckpointError: The model is damaged, a location leads out of the folder, or no file is there.
    """
    with reading(model_path, "an ONNX model"):
        contents = graph_contents(memoryview(MappedFile(model_path).data))
        locations = sorted({data.location for data in contents.external})
    paths: list[Path] = []
    for location in locations:
        path = model_path.parent / location
        # A location is a path relative to the model. It must not leave the folder, even by way of links.
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
