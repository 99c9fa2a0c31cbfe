"""Make a bundle of ONNX exports in the layout of transformers.js.

`onnx/vision_model.onnx` takes normalized pixels and `onnx/text_model.onnx` token ids. A bundle's graphs take uint8
pixels and give embeddings of unit norm, so nodes for both are put around those of the exports, which stay as they are.
Their weights move into `weights.safetensors`.
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

from clipita.bundles.bundle import TOKENIZER, WEIGHTS, Bundle, BundleConfig, Graphs, write_bundle
from clipita.convert.export import Provenance
from clipita.convert.folder.files import file_in, json_in
from clipita.convert.folder.names import ONNX_SUFFIXES, ONNX_TOWERS
from clipita.convert.graph.external_data import external_data_inside
from clipita.convert.layouts.clip import is_lower_case
from clipita.convert.layouts.dual import clip_preprocessing, half_preprocessing
from clipita.convert.layouts.preprocessor_config import preprocessing_of
from clipita.convert.tokenizers.files import tokenizer_of
from clipita.convert.weights.quantize import Stored
from clipita.convert.weights.safetensors_file import StoredWeights, write_weights
from clipita.errors import CheckpointError
from clipita.images.pixels import Preprocessing
from clipita.system.arrays import Array

_INLINE_BYTES = 64  # smaller tensors stay in the graph
_TYPES: dict[int, type[np.generic]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.INT8: np.int8,
    TensorProto.UINT8: np.uint8,
}
KIND = "onnx"  # the "kind" of such towers in clipita.json
# The inputs that a tower's graph may have, and its possible outputs, best first. SigLIP's pooled output is its
# embedding; CLIP's is not, but its exports have the embeddings as well.
_OUTPUTS = {"image": ("image_embeds", "pooler_output"), "text": ("text_embeds", "pooler_output")}
_INPUTS = {"image": {"pixel_values"}, "text": {"input_ids", "attention_mask"}}


def write_export_bundle(folder: Path, out: Path, provenance: Provenance, precision: str) -> Bundle:
    """Write a bundle around two exported graphs.

    The scale and the bias of the logits are in neither graph. The scale is set to 100, at which CLIP's training
    caps it. SigLIP's scale and bias differ from model to model, so its exports get a softmax over labels, as CLIP's do,
    and no sigmoids.

    Args:
        folder: The folder with config.json and the folder "onnx".
        out: The folder to write to.
        provenance: The model's name, license and source.
        precision: The variant, by the name that `load` knows it by.

    Raises:
        CheckpointError: There is no such variant; or a graph is damaged, has other inputs or outputs than those of CLIP
            and SigLIP, or keeps weights outside its folder.
    """
    paths = _paths(folder, precision)
    models = {tower: _read(path, folder) for tower, path in paths.items()}
    stored: dict[str, Stored] = {}
    for tower, model in models.items():
        stored |= _take_weights(model, tower, paths[tower])
    settings, kind = _settings(folder)
    preprocessing = _preprocessing(folder, settings, kind)
    widths = {tower: _wrap(model, tower, preprocessing) for tower, model in models.items()}
    if widths["image"] != widths["text"]:
        raise CheckpointError(f"the graphs in '{folder}' give embeddings of different widths: {widths}.")
    tokenizer_json, tokenizer = tokenizer_of(
        folder,
        max_tokens=_number(settings, "text_config", "max_position_embeddings", 77 if kind == "clip" else 64),
        fixed_length=kind == "siglip",
        lowercase=kind == "siglip" and is_lower_case(folder),
    )
    graphs = Graphs("image.onnx", "text.onnx")
    config = BundleConfig(
        **dataclasses.asdict(provenance),
        embed_dim=widths["image"],
        logit_scale=100.0,
        logit_bias=None,
        templates=("{}",),
        image={"kind": KIND, "preprocessing": preprocessing.to_dict()},
        text={"kind": KIND, "tokenizer": tokenizer.to_dict()},
        image_projection={},
        text_projection={},
        precisions={precision: graphs},
        recommended_precision=precision,
    )
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".weights.", dir=out) as scratch:
        weights_file = Path(scratch) / WEIGHTS
        write_weights(weights_file, stored)
        places = StoredWeights.from_file(weights_file).places
        for tower, model in models.items():
            for tensor in model.graph.initializer:
                if (place := places.get(f"{tower}.{tensor.name}")) is not None:
                    where = {"location": WEIGHTS, "offset": place.offset, "length": place.length}
                    for key, value in where.items():
                        tensor.external_data.add(key=key, value=str(value))
        contents: dict[str, Path | bytes] = {
            graphs.image: models["image"].SerializeToString(deterministic=True),
            graphs.text: models["text"].SerializeToString(deterministic=True),
            TOKENIZER: tokenizer_json.encode(),
            WEIGHTS: weights_file,
        }
        return write_bundle(out, config=config, files=contents, moved=[WEIGHTS])


def _paths(folder: Path, precision: str) -> dict[str, Path]:
    for suffix in ONNX_SUFFIXES.get(precision, (f"_{precision}",)):
        image, text = (file_in(folder, f"{tower}{suffix}.onnx") for tower in ONNX_TOWERS)
        if image is not None and text is not None:
            return {"image": image, "text": text}
    others = sorted(path.name for path in (folder / "onnx").glob("*.onnx"))
    raise CheckpointError(
        f"'{folder}' has no ONNX exports of precision {precision!r}, but {', '.join(others)}. Choose one of these by "
        "precision=: 'fp32' is without an ending, 'int8' is _quantized or _int8, others are named by their ending."
    )


def _settings(folder: Path) -> tuple[dict[str, Any], str]:
    settings = json_in(folder, "config.json") or {}
    kind = settings.get("model_type")
    if kind not in ("clip", "siglip"):
        raise CheckpointError(
            f"the ONNX exports in '{folder}' are of model_type {str(kind)[:80]!r}; clipita reads "
            "those of 'clip' and 'siglip'."
        )
    return settings, kind


def _preprocessing(folder: Path, settings: dict[str, Any], kind: str) -> Preprocessing:
    size = _number(settings, "vision_config", "image_size", 224)
    default = clip_preprocessing(size) if kind == "clip" else half_preprocessing(size, "bicubic")
    found = preprocessing_of(folder, default=default)
    if found.image_size != size:
        raise CheckpointError(
            f"the image tower in '{folder}' reads {size} pixels, but its preprocessor_config.json makes "
            f"{found.image_size} of them. One of the two is of another model."
        )
    return found


def _number(settings: dict[str, Any], part: str, key: str, default: int) -> int:
    value = (settings.get(part) or {}).get(key, default)
    if type(value) is not int or not 1 <= value <= 1 << 16:
        raise CheckpointError(f"config.json: {part}.{key} is {str(value)[:80]!r}, expected a whole number of pieces.")
    return value


def _read(path: Path, folder: Path) -> onnx.ModelProto:
    external_data_inside(path, folder)
    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's exception is not part of its interface
        raise CheckpointError(f"{str(path)!r} is no ONNX model that can be read: {error}. Fetch it again.") from error


def _take_weights(model: onnx.ModelProto, tower: str, path: Path) -> dict[str, Stored]:
    """Move the numbers of large tensors out of the model; the tensors stay in it without them."""
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
    except Exception as error:  # a damaged file makes it raise anything
        raise CheckpointError(f"{str(path)!r}: the tensor {tensor.name!r} is damaged: {error}.") from error


def _external(tensor: TensorProto, path: Path) -> Array:
    """Map the numbers of a tensor that are in a file beside the graph, without reading them."""
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
    """Put our inputs and our output around the graph, and return the width of its embeddings."""
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
    # A tower that sees its padding has no mask; its graph gets one as an input that nothing uses.
    names = ("input_ids", "attention_mask")
    return [], [helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "L"]) for name in names]
