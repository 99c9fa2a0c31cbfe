"""Put both towers of a checkpoint and their projections together under our names, for every layout."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from clipita.convert.layouts.bert_towers import TextTower
from clipita.convert.layouts.image_towers import ImageTower
from clipita.convert.layouts.leaves import Names, prefixed, table_of
from clipita.convert.tokenizers.files import Clean
from clipita.errors import CheckpointError
from clipita.images.pixels import Preprocessing
from clipita.system.arrays import Array
from clipita.towers.config import DualConfig, ProjectionConfig
from clipita.towers.shapes import parameter_shapes


class TextRules(NamedTuple):
    """The folder of a checkpoint's tokenizer, and the other arguments of `tokenizer_of`."""

    folder: Path
    max_tokens: int
    fixed_length: bool = False
    lowercase: bool = False
    clean: Clean | None = None


class DualWeights(NamedTuple):
    """A dual encoder from a checkpoint; its weights are views of the leaves, of their stored dtype."""

    config: DualConfig
    weights: dict[str, Array]
    texts: TextRules
    logit_scale: float
    logit_bias: float | None = None


class ProjectionLeaves(NamedTuple):
    """The projection of one tower; `names` maps its leaves in the checkpoint to ours, without the prefix."""

    projection: ProjectionConfig
    names: Names


LINEAR = ProjectionConfig()


def assemble(
    leaves: dict[str, Array],
    text: TextTower,
    image: ImageTower,
    *,
    text_prefix: str,
    image_prefix: str,
    text_projection: ProjectionLeaves,
    image_projection: ProjectionLeaves,
    embed_dim: int,
    preprocessing: Preprocessing,
    harmless: Iterable[str] = (),
) -> tuple[DualConfig, dict[str, Array]]:
    """Make the architecture and the table of weights from the parts of a checkpoint, and use every leaf.

    Args:
        leaves: All leaves of the checkpoint, without the scales of the logits. The mapping is changed.
        text: The text tower.
        image: The image tower.
        text_prefix: The beginning of the names of the text tower's leaves.
        image_prefix: The beginning of the names of the image tower's leaves.
        text_projection: The text projection.
        image_projection: The image projection.
        embed_dim: The width E of the embeddings.
        preprocessing: The preprocessing that the folder states.
        harmless: Leaves without effect, besides those of the towers.

    Returns:
        The architecture, and the weights by our names.

    Raises:
        CheckpointError: As `table_of`; or the preprocessing gives another size than the image tower reads; or heads do
            not divide a width.
    """
    if preprocessing.image_size != image.image_size:
        raise CheckpointError(
            f"the image tower reads images of {image.image_size} x {image.image_size} pixels, and the preprocessing "
            f"gives {preprocessing.image_size}. One of config.json and preprocessor_config.json is of another model."
        )
    for tower, size in (("text", text.config), ("image", image.config)):
        if size.heads < 1 or size.width % size.heads:
            raise CheckpointError(
                f"the {tower} tower has a width of {size.width} and {size.heads} heads, which must divide it. Its "
                "configuration is damaged."
            )
    config = DualConfig(
        image=image.config,
        text=text.config,
        preprocessing=preprocessing,
        embed_dim=embed_dim,
        image_projection=image_projection.projection,
        text_projection=text_projection.projection,
    )
    names = {
        **prefixed(text_prefix, "text.", text.names),
        **prefixed(image_prefix, "image.", image.names),
        **prefixed("", "text_projection.", text_projection.names),
        **prefixed("", "image_projection.", image_projection.names),
    }
    unused = {text_prefix + name for name in text.harmless} | {image_prefix + name for name in image.harmless}
    if text.prepare is not None:
        text.prepare(leaves, text_prefix)
    return config, table_of(leaves, names, parameter_shapes(config), harmless=unused | set(harmless))


def clip_preprocessing(image_size: int) -> Preprocessing:
    """Return OpenAI's preprocessing, for checkpoints that state none."""
    return Preprocessing.from_dict({
        "image_size": image_size, "resize": "shortest", "interpolation": "bicubic",
        "mean": [255 * value for value in (0.48145466, 0.4578275, 0.40821073)],
        "std": [255 * value for value in (0.26862954, 0.26130258, 0.27577711)],
        "crop": "floor", "transparency": "drop",
    })  # fmt: skip


def half_preprocessing(image_size: int, interpolation: str) -> Preprocessing:
    """Return SigLIP's and ViT's preprocessing, for checkpoints that state none."""
    half = [127.5, 127.5, 127.5]
    fields: Mapping[str, object] = {"image_size": image_size, "resize": "squash", "interpolation": interpolation}
    return Preprocessing.from_dict({**fields, "mean": half, "std": half, "transparency": "drop"})
