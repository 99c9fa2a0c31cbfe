"""Find how large a model's activations become, on the pictures and texts of `clipita.convert.samples`."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from clipita.backends.graph_check import check_graph
from clipita.backends.onnx import run_each
from clipita.bundles.bundle import TOKENIZER, Bundle
from clipita.convert.graph.watched import watched
from clipita.convert.samples import TEXTS, pictures
from clipita.system.arrays import FloatArray
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


def _largest(bundle: Bundle, name: str, inputs: Iterable[dict[str, npt.NDArray[Any]]]) -> dict[str, FloatArray]:
    check_graph(bundle, name)
    graph, output_of = watched(bundle.path(name).read_bytes())
    if not output_of:
        return {}
    found: dict[str, FloatArray] = {}
    for outputs in run_each(bundle, graph, inputs):
        found = {key: np.maximum(found.get(key, values), values) for key, values in outputs.items()}
    return {kernel: found[output] for kernel, output in output_of.items()}
