"""Find how large a model's activations become, on given pictures, or on those of `clipita.convert.samples`."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from clipita.backends.graph_check import check_graph
from clipita.backends.onnx import run_each
from clipita.bundles.bundle import TOKENIZER, Bundle
from clipita.convert.graph.watched import watched, watched_convolutions
from clipita.convert.samples import TEXTS, pictures
from clipita.convert.weights.integer_convolutions import Activations
from clipita.system.arrays import FloatArray, Pixels
from clipita.text.tokenizer import Tokenizer
from clipita.towers.opened import OpenedModel


def largest_inputs(model: OpenedModel) -> dict[str, FloatArray]:
    """Measure what each kernel of a float32 bundle is multiplied by.

    Returns:
        Name of a kernel (inputs, outputs) -> (inputs,), the largest magnitude of each channel. Kernels that share an
        input share one array.

    Raises:
        BackendError: A graph cannot be run.
        CheckpointError: A graph reads files that are not the bundle's.
    """
    bundle = model.bundle
    batches = Tokenizer.from_file(bundle.path(TOKENIZER), model.tokenizer).encode(
        TEXTS, batch_size=1, on_truncate="ignore"
    )
    texts = [{"input_ids": batch.input_ids, "attention_mask": batch.attention_mask} for batch in batches]
    images = [{"pixels": picture[None]} for picture in pictures(model.preprocessing.image_size)]
    graphs = bundle.config.precisions["fp32"]
    return _largest(bundle, graphs.image, images) | _largest(bundle, graphs.text, texts)


def convolution_activations(bundle: Bundle, pixels: Pixels) -> Activations:
    """Measure what each convolution of a float32 bundle's image tower reads and writes.

    Args:
        bundle: The bundle.
        pixels: (N, S, S, 3), photographs as the tower reads them, one or more. Sixteen are enough for clipita-mini;
            random pictures are too gray: with them its int8 has a mean cosine of 0.985 instead of 0.999 to float32.

    Raises:
        BackendError: The graph cannot be run.
        CheckpointError: The graph reads files that are not the bundle's.
    """
    name = bundle.config.precisions["fp32"].image
    check_graph(bundle, name)
    graph = watched_convolutions(bundle.path(name).read_bytes())
    seen = list(run_each(bundle, graph, ({"pixels": picture[None]} for picture in pixels)))
    found = {key: np.stack([outputs[key] for outputs in seen]) for key in seen[0]}  # (N,) or (N, inputs)
    means = {key.removesuffix(".mean"): values.mean(axis=0) for key, values in found.items() if key.endswith(".mean")}
    ranges = {
        f"{key.removesuffix('_least')}_range": np.array(
            [least.min(), found[f"{key.removesuffix('_least')}_most"].max()]
        )
        for key, least in found.items()
        if key.endswith("_least")
    }
    return Activations(means, ranges)


def _largest(bundle: Bundle, name: str, inputs: Iterable[dict[str, npt.NDArray[Any]]]) -> dict[str, FloatArray]:
    check_graph(bundle, name)
    graph, output_of = watched(bundle.path(name).read_bytes())
    if not output_of:
        return {}
    found: dict[str, FloatArray] = {}
    for outputs in run_each(bundle, graph, inputs):
        found = {key: np.maximum(found.get(key, values), values) for key, values in outputs.items()}
    return {kernel: found[output] for kernel, output in output_of.items()}
