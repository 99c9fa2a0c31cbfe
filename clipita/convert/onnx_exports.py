"""ONNX exports in the layout of transformers.js as a bundle: their nodes as they are, between ours.

`onnx/vision_model.onnx` takes normalised pixels and `onnx/text_model.onnx` token ids; what a bundle's graphs do beside
(uint8 pixels in, embeddings of unit norm out) is put around them, and their weights move into `weights.safetensors`.
"""

# onnx generates its types at run time.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import dataclasses
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clipita._repository import ONNX_SUFFIXES, ONNX_TOWERS
from clipita.bundle import TOKENIZER, WEIGHTS, Bundle, BundleConfig, Graphs, write_bundle
from clipita.convert.files import file_in
from clipita.convert.quantize import Array, Stored
from clipita.convert.weights_file import StoredWeights, write_weights
from clipita.errors import CheckpointError
from clipita.images import Preprocessing

_INLINE_BYTES = 1024  # smaller tensors stay in the graph
_TYPES = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.INT8: np.int8,
    TensorProto.UINT8: np.uint8,
}
# What a tower's graph may take and give, best first. SigLIP's pooled output is its embedding; CLIP's is not, but its
# exports have the embeddings beside.
_OUTPUTS = {"image": ("image_embeds", "pooler_output"), "text": ("text_embeds", "pooler_output")}
_INPUTS = {"image": {"pixel_values"}, "text": {"input_ids", "attention_mask"}}


def is_export(folder: Path) -> bool:
    """Whether a folder holds exports and no weights in another form."""
    has_weights = any((folder / f"{name}{end}").exists() for name in WEIGHT_FILES for end in ("", ".index.json"))
    return not has_weights and any((folder / "onnx").glob("vision_model*.onnx"))


def write_export_bundle(out: Path, files: tuple[Path, Path], config: BundleConfig, tokenizer_json: str) -> Bundle:
    """Write a bundle around two exported graphs.

    Args:
        out: The folder to write to.
        files: The graphs of the image and the text tower.
        config: What the bundle is to say, but for `embed_dim`, which the graphs know.
        tokenizer_json: Contents of its `tokenizer.json`.

    Raises:
        CheckpointError: a graph is damaged, takes or gives what those of CLIP and SigLIP do not, or keeps weights
            outside its folder.
    """
    models = {tower: _read(path) for tower, path in zip(("image", "text"), files, strict=True)}
    stored: dict[str, Stored] = {}
    for (tower, model), path in zip(models.items(), files, strict=True):
        stored |= _take_weights(model, tower, path)
    preprocessing = Preprocessing.from_dict(config.image["preprocessing"])
    widths = {tower: _wrap(model, tower, preprocessing) for tower, model in models.items()}
    if len(set(widths.values())) != 1:
        raise CheckpointError(f"the two graphs give embeddings of different widths: {widths}. Export them again.")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".weights.", dir=out) as scratch:
        weights_file = Path(scratch) / WEIGHTS
        write_weights(weights_file, stored)
        places = StoredWeights.from_file(weights_file).places
        for tower, model in models.items():
            for tensor in model.graph.initializer:
                place = places.get(f"{tower}.{tensor.name}")
                if place is not None:
                    where = {"location": WEIGHTS, "offset": place.offset, "length": place.length}
                    for key, value in where.items():
                        tensor.external_data.add(key=key, value=str(value))
        (graphs,) = config.precisions.values()
        contents = {
            graphs.image: models["image"].SerializeToString(deterministic=True),
            graphs.text: models["text"].SerializeToString(deterministic=True),
            TOKENIZER: tokenizer_json.encode(),
            WEIGHTS: weights_file,
        }
        return write_bundle(out, config=dataclasses.replace(config, embed_dim=widths["image"]), files=contents)


def graphs_of(precision: str | None) -> Mapping[str, Graphs]:
    """How the graphs are called in a bundle."""
    return {precision or "fp32": Graphs("image.onnx", "text.onnx")}


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own, which is not part of its interface
        raise CheckpointError(f"{str(path)!r} is no ONNX model that can be read: {error}. Fetch it again.") from error


def _take_weights(model: onnx.ModelProto, tower: str, path: Path) -> dict[str, Stored]:
    """The large tensors, which are left in the model without their numbers."""
    taken: dict[str, Stored] = {}
    for tensor in model.graph.initializer:
        is_external = tensor.data_location == TensorProto.EXTERNAL
        values = _external(tensor, path) if is_external else None
        if (
            tensor.data_type not in _TYPES
            or math.prod(tensor.dims) * np.dtype(_TYPES[tensor.data_type]).itemsize < _INLINE_BYTES
        ):
            if values is not None:
                tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
            continue
        if values is None:
            values = _internal(tensor, path)
        taken[f"{tower}.{tensor.name}"] = Stored(values, values.dtype)
        bare = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        bare.data_location = TensorProto.EXTERNAL
        tensor.CopyFrom(bare)
    return taken


def _internal(tensor: TensorProto, path: Path) -> Array:
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # whatever a damaged file makes it stumble over
        raise CheckpointError(f"{str(path)!r}: the tensor {tensor.name!r} is damaged: {error}.") from error


def _external(tensor: TensorProto, path: Path) -> Array:
    """The numbers of a tensor that are in a file beside the graph, mapped and not read."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    called = f"{str(path)!r}: the tensor {tensor.name!r}"
    location = where.get("location", "")
    if location in ("", ".", "..") or any(character in location for character in "/\\:\0"):
        raise CheckpointError(f"{called} is kept at {location!r}: only files beside the graph are read.")
    file = file_in(path.parent, location)
    if file is None:
        raise CheckpointError(f"{called} is kept in {location!r}, which is not there. Fetch the whole folder again.")
    dtype = (
        np.dtype(_TYPES[tensor.data_type])
        if tensor.data_type in _TYPES
        else helper.tensor_dtype_to_np_dtype(tensor.data_type)
    )
    count = math.prod(tensor.dims)
    try:
        offset = int(where.get("offset", "0"))
    except ValueError:
        offset = -1
    if min(tensor.dims, default=0) < 0 or offset < 0 or offset + count * dtype.itemsize > file.stat().st_size:
        raise CheckpointError(
            f"{called} reaches beyond the {file.stat().st_size:,} bytes of {location!r}. Fetch the folder again."
        )
    if count == 0:
        return np.zeros(tuple(tensor.dims), dtype)
    return np.memmap(file, dtype, "r", offset, tuple(tensor.dims))


def _wrap(model: onnx.ModelProto, tower: str, preprocessing: Preprocessing) -> int:
    """Our inputs and our output around the graph. Returns the width of the embeddings."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in weights}
    if strange := sorted(inputs.keys() - _INPUTS[tower]):
        raise CheckpointError(
            f"the graph of the {tower} tower takes {strange}; only {sorted(_INPUTS[tower])} is known."
        )
    before, ours = (_pixels if tower == "image" else _tokens)(graph, inputs, preprocessing)
    outputs = {value.name: value for value in graph.output}
    found = next((name for name in _OUTPUTS[tower] if name in outputs), None)
    if found is None:
        raise CheckpointError(
            f"the graph of the {tower} tower gives {sorted(outputs)}; one of {list(_OUTPUTS[tower])} is needed. Export "
            "it with its projection."
        )
    width = outputs[found].type.tensor_type.shape.dim[-1].dim_value
    if width < 1:
        raise CheckpointError(
            f"the graph of the {tower} tower does not say how wide its {found!r} is. Export it again."
        )
    result = f"{tower}_embeddings"
    after = [
        helper.make_node("Cast", [found], ["clipita_float"], to=TensorProto.FLOAT),
        helper.make_node("LpNormalization", ["clipita_float"], [result], axis=-1, p=2),
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.extend(ours)
    graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, ["B", width]))
    return width


def _pixels(graph: Any, inputs: Mapping[str, Any], preprocessing: Preprocessing) -> tuple[list[Any], list[Any]]:
    size = preprocessing.image_size
    kind = inputs["pixel_values"].type.tensor_type.elem_type if "pixel_values" in inputs else 0
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        raise CheckpointError("the graph of the image tower has no float input 'pixel_values'.")
    for name, value in (("mean", np.array(preprocessing.mean)), ("factor", 1 / np.array(preprocessing.std))):
        array = value.astype(np.float32).reshape(1, 3, 1, 1)
        graph.initializer.append(numpy_helper.from_array(array, f"clipita_{name}"))
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["clipita_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["clipita_planes"], ["clipita_values"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["clipita_values", "clipita_mean"], ["clipita_centred"]),
        helper.make_node("Mul", ["clipita_centred", "clipita_factor"], ["clipita_scaled"]),
        helper.make_node("Cast", ["clipita_scaled"], ["pixel_values"], to=kind),
    ]
    return nodes, [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", size, size, 3])]


def _tokens(graph: Any, inputs: Mapping[str, Any], _: Preprocessing) -> tuple[list[Any], list[Any]]:
    if "input_ids" not in inputs:
        raise CheckpointError("the graph of the text tower has no input 'input_ids'.")
    if any(value.type.tensor_type.elem_type != TensorProto.INT64 for value in inputs.values()):
        raise CheckpointError(
            "the graph of the text tower takes token ids in another form than int64. Export it again."
        )
    # A tower that sees its padding has no mask, and is given one that it does not look at.
    names = ("input_ids", "attention_mask")
    return [], [helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "L"]) for name in names]
