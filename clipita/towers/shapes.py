"""List the name and the shape of every weight of a dual encoder, as in `clipita.towers.parameters`, without JAX.

The readers of checkpoints check every leaf against this table before anything is converted.
"""

from typing import assert_never

from clipita.towers.config import BertConfig, DualConfig, ProjectionConfig, TransformerConfig, VitConfig
from clipita.towers.efficientnet_config import EfficientNetLiteConfig, block_shapes

Shapes = dict[str, tuple[int, ...]]


def parameter_shapes(config: DualConfig) -> Shapes:
    """Return the shapes of both towers and both projections by name, normalizations of convolutions folded."""
    match config.image:
        case VitConfig() as tower:
            image = _vit(tower, config.preprocessing.image_size)
        case EfficientNetLiteConfig() as tower:
            image = _efficientnet(tower)
        case _:
            assert_never(config.image)
    return {
        **{f"image.{name}": shape for name, shape in image.items()},
        **{f"text.{name}": shape for name, shape in _text(config).items()},
        **_projection("image_projection.", config.image.features, config.embed_dim, config.image_projection),
        **_projection("text_projection.", config.text.features, config.embed_dim, config.text_projection),
    }


def _linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Shapes:
    return {f"{name}.kernel": (inputs, outputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.scale": (width,), f"{name}.bias": (width,)}


def _attention_mlp(prefix: str, config: TransformerConfig) -> Shapes:
    width = config.width
    shapes: Shapes = {}
    for name in ("query", "key", "value", "output"):
        shapes |= _linear(prefix + name, width, width)
    shapes |= _linear(f"{prefix}mlp_in", width, config.mlp_width) | _linear(f"{prefix}mlp_out", config.mlp_width, width)
    return shapes | _norm(f"{prefix}mlp_norm", width)


def _layers(config: TransformerConfig) -> Shapes:
    shapes = _norm("norm", config.width)
    for index in range(config.layers):
        prefix = f"layers.{index}."
        shapes |= _attention_mlp(prefix, config) | _norm(f"{prefix}attention_norm", config.width)
    return shapes


def _vit(config: VitConfig, image_size: int) -> Shapes:
    width = config.width
    shapes = _layers(config)
    shapes["patch.kernel"] = (width, 3, config.patch, config.patch)
    shapes["position.embedding"] = (config.positions(image_size), width)
    if config.patch_bias:
        shapes["patch.bias"] = (width,)
    if config.class_token:
        shapes["class_token.embedding"] = (1, width)
    if config.embedding_norm:
        shapes |= _norm("embedding_norm", width)
    if config.pooling == "pooler":
        shapes |= _linear("pooler", width, width)
    if config.pooling == "map":
        shapes |= _attention_mlp("head.", config) | {"head.probe.embedding": (1, width)}
    return shapes


def _text(dual: DualConfig) -> Shapes:
    config = dual.text
    width = config.width
    shapes = _layers(config)
    shapes["word.embedding"] = (config.vocabulary, width)
    shapes["position.embedding"] = (config.positions, width)
    if isinstance(config, BertConfig):
        if config.token_types:
            shapes["token_type.embedding"] = (config.token_types, width)
        if config.pooling == "pooler":
            shapes |= _linear("pooler", width, width)
    return shapes


def _projection(prefix: str, features: int, embed_dim: int, config: ProjectionConfig) -> Shapes:
    shapes: Shapes = {}
    if config.linear:
        shapes |= _linear(f"{prefix}linear", features, embed_dim, bias=config.bias)
    if config.hidden is not None:
        bias = config.bias or config.linear
        shapes |= _linear(f"{prefix}mlp_in", features, config.hidden, bias=bias)
        shapes |= _linear(f"{prefix}mlp_out", config.hidden, embed_dim, bias=bias)
    return shapes


def _efficientnet(config: EfficientNetLiteConfig) -> Shapes:
    blocks = block_shapes(config)
    kernels = {"stem": (config.stem_width, 3, 3, 3), "head": (config.head_width, blocks[-1].outputs, 1, 1)}
    for index, block in enumerate(blocks):
        name = f"blocks.{index}."
        if block.has_expansion:
            kernels[f"{name}expand"] = (block.expanded, block.inputs, 1, 1)
        kernels[f"{name}depthwise"] = (block.expanded, 1, block.kernel, block.kernel)
        kernels[f"{name}project"] = (block.outputs, block.expanded, 1, 1)
    shapes: Shapes = {f"{name}.kernel": shape for name, shape in kernels.items()}
    return shapes | {f"{name}.bias": (shape[0],) for name, shape in kernels.items()}
