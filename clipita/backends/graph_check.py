"""Check a bundle's graph before ONNX Runtime loads it.

Before version 1.24 ONNX Runtime reads the numbers of a tensor from wherever the graph says: any path, or an address in
memory.
"""

from clipita.bundles.bundle import EMBEDDED, Bundle
from clipita.convert.graph.contents import graph_contents
from clipita.errors import BackendError, CheckpointError

# Most elements of the tensors that a graph builds from constants: 1 GiB of float32. Masks and positions, which towers
# do build, take a millionth of that.
_MAX_BUILT = 1 << 28


def check_graph(bundle: Bundle, name: str) -> None:
    """Refuse a graph that reads files which its bundle does not list, or that builds huge tensors.

    Args:
        bundle: The bundle of the graph.
        name: The graph's file in it.

    Raises:
        CheckpointError: The graph's weights are outside the bundle's own files, or it builds tensors of more than
            2**28 elements from constants.
        BackendError: The graph is damaged, so that ONNX Runtime cannot load it.
    """
    if bundle.folder.parent == EMBEDDED:  # it comes with this code, and is trusted as much
        return
    path = bundle.path(name)
    called = repr(str(path))
    try:
        contents = graph_contents(memoryview(path.read_bytes()))
    except (CheckpointError, OSError) as error:
        raise BackendError(
            f"ONNX Runtime cannot load {called}: {str(error)[:200]}. Copy or download it again."
        ) from error
    sizes: dict[str, int] = {}
    for data in contents.external:
        if data.location not in bundle.files:
            raise CheckpointError(
                f"{called} keeps weights in {data.location[:200]!r}, which is no file of this bundle. Nothing of it "
                "was read. Export the bundle again, and load none whose author you do not trust."
            )
        if data.location not in sizes:
            sizes[data.location] = bundle.path(data.location).stat().st_size
        if data.offset < 0 or data.offset + max(data.length or 0, 0) > sizes[data.location]:
            raise CheckpointError(
                f"{called} keeps weights beyond the {sizes[data.location]:,} bytes of {data.location!r}. Copy or "
                "download the bundle again."
            )
    if contents.built > _MAX_BUILT:
        raise CheckpointError(
            f"{called} builds tensors of {contents.built:,} elements out of constants ({contents.what}), and no tower "
            f"needs more than {_MAX_BUILT:,}. Load no bundle whose author you do not trust."
        )
