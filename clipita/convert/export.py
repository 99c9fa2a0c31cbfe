"""Write a dual encoder as a bundle: its weights once, the graphs that point into them, and `clipita.json`."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from clipita.bundles.bundle import TOKENIZER, WEIGHTS, Bundle, BundleConfig, Graphs, write_bundle
from clipita.convert.graph.towers import image_graph, text_graph
from clipita.convert.layouts.efficientnet_lite import fold_batch_norm
from clipita.convert.weights.integer_convolutions import Activations, integer_convolutions
from clipita.convert.weights.quantize import WeightFormat, plan
from clipita.convert.weights.safetensors_file import StoredWeights, write_weights
from clipita.errors import CheckpointError
from clipita.system.arrays import Array
from clipita.text.tokenizer import TokenizerConfig
from clipita.towers.config import DualConfig


@dataclass(frozen=True)
class Provenance:
    """The name of a model, the license of its weights, and their source and its revision, as the bundle states them."""

    name: str
    license: str
    source: str
    revision: str


@dataclass(frozen=True)
class Storage:
    """Says how a bundle stores its weights, and how its graphs multiply them.

    Attributes:
        precision: The name that users know this by: "fp32", "int8".
        formats: Pattern of a name -> format, as `clipita.convert.weights.quantize.quantize` takes them; what none fits
            stays float32.
        factors: As `clipita.convert.weights.quantize.plan` takes them.
        activations: What the convolutions of an EfficientNet read and write; they are then computed in integers, for
            which their kernels must be stored as int8. None means in float32.
        portable: Graphs have standard ONNX operators only, for other runtimes.
    """

    precision: str = "fp32"
    formats: Mapping[str, WeightFormat] = field(default_factory=dict[str, WeightFormat])
    factors: Mapping[str, Array] = field(default_factory=dict[str, Array])
    activations: Activations | None = None
    portable: bool = False


FLOAT32 = Storage()


def write_dual_bundle(
    folder: Path,
    table: Mapping[str, Array],
    config: DualConfig,
    *,
    provenance: Provenance,
    tokenizer: TokenizerConfig,
    tokenizer_file: Path,
    logit_scale: float,
    logit_bias: float | None = None,
    templates: Sequence[str] = ("{}",),
    storage: Storage = FLOAT32,
) -> Bundle:
    """Write a bundle that both backends run.

    Args:
        folder: Made if it does not exist; a bundle in it is replaced.
        table: The `clipita.towers.parameters.parameter_table` of a `DualEncoder`; normalizations are folded here.
        config: The architecture of the `DualEncoder`.
        provenance: The model's name, license and source.
        tokenizer: The rules and limits of the tokenizer.
        tokenizer_file: The path of its `tokenizer.json`.
        logit_scale: The multiplier: logits = logit_scale x cosine + logit_bias.
        logit_bias: The summand, or None.
        templates: Sentences with one "{}" each, for the label.
        storage: How the weights are stored, and multiplied.

    Raises:
        CheckpointError: The table is not that of this architecture.
    """
    graphs = Graphs("image.onnx", "text.onnx")
    bundle_config = BundleConfig(
        **asdict(provenance),
        embed_dim=config.embed_dim,
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        templates=tuple(templates),
        image=config.image_fields() | {"preprocessing": config.preprocessing.to_dict()},
        text=config.text_fields() | {"tokenizer": tokenizer.to_dict()},
        image_projection=asdict(config.image_projection),
        text_projection=asdict(config.text_projection),
        precisions={storage.precision: graphs},
        recommended_precision=storage.precision,
    )
    folder.mkdir(parents=True, exist_ok=True)
    # The weights are written to disk tensor by tensor: a large model would otherwise be in memory twice.
    with tempfile.TemporaryDirectory(prefix=".weights.", dir=folder) as scratch:
        weights_file = Path(scratch) / WEIGHTS
        folded = fold_batch_norm(dict(table))
        stored = plan(folded, storage.formats, storage.factors)
        if storage.activations is not None:
            stored = integer_convolutions(stored, folded, storage.activations)
        write_weights(weights_file, stored)
        weights = StoredWeights.from_file(weights_file)
        image, text = (make(config, weights, portable=storage.portable) for make in (image_graph, text_graph))
        used = {tensor.name for graph in (image, text) for tensor in graph.graph.initializer}
        # Of kernels that share their input, and so their factors, one gives them to the graph. Ranges, and the biases
        # that are integers in the graph, are no numbers of the file in it.
        aside = (".kernel.inputs", "_range", *((".bias",) if storage.activations is not None else ()))
        if unused := sorted(name for name in weights.places.keys() - used if not name.endswith(aside)):
            raise CheckpointError(f"the weights hold tensors that the model does not use: {unused[:5]}")
        files: dict[str, Path | bytes] = {
            graphs.image: image.SerializeToString(deterministic=True),
            graphs.text: text.SerializeToString(deterministic=True),
            TOKENIZER: tokenizer_file,
            WEIGHTS: weights_file,
        }
        return write_bundle(folder, config=bundle_config, files=files, moved=[WEIGHTS])
