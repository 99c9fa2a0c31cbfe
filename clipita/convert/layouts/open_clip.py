"""Read OpenCLIP's files: `open_clip_config.json`, and weights under the names of open_clip, timm and transformers.

Source: open_clip 3.3, `model.py`, `transformer.py`.
"""

from pathlib import Path
from typing import Any, Literal

from clipita.convert.layouts.bert_towers import TextTower
from clipita.convert.layouts.dual import LINEAR, DualWeights, ProjectionLeaves, TextRules, assemble
from clipita.convert.layouts.image_towers import ImageTower
from clipita.convert.layouts.leaves import exp_scale, linear, norm, repeated, scalar
from clipita.convert.layouts.open_clip_borrowed import hf_text_tower, timm_tower
from clipita.convert.layouts.preprocessor_config import open_clip_preprocessing
from clipita.convert.layouts.settings import Settings
from clipita.convert.readers.weights import read_weights
from clipita.convert.tokenizers.files import Clean
from clipita.system.arrays import Array
from clipita.towers.config import NO_PROJECTION, Activation, ClipTextConfig, ProjectionConfig, VitConfig

CONFIG = "open_clip_config.json"

_LAYER = {
    "attn.in_proj_weight": "query+key+value.kernel",
    "attn.in_proj_bias": "query+key+value.bias",
    **linear({"attn.out_proj": "output", "mlp.c_fc": "mlp_in", "mlp.c_proj": "mlp_out"}),
    **norm({"ln_1": "attention_norm", "ln_2": "mlp_norm"}),
}
_VISUAL = {
    "conv1.weight": "patch.kernel",
    "class_embedding": "class_token.embedding",
    "positional_embedding": "position.embedding",
    **norm({"ln_post": "norm"}),
}
_TEXT = {
    "token_embedding.weight": "word.embedding",
    "positional_embedding": "position.embedding",
    **norm({"ln_final": "norm"}),
}
_POOLINGS: dict[str, Literal["highest", "last", "eos", "cls"]] = {
    "argmax": "highest", "last": "last", "eos": "eos", "first": "cls",
}  # fmt: skip
_CLEANS: dict[str, Clean] = {"whitespace": "whitespace", "lower": "lower", "canonicalize": "canonicalize"}
_UNUSUAL: dict[str, Any] = {
    "ls_init_value": None, "block_type": None, "qk_norm": False, "scaled_cosine_attn": False, "scale_heads": False,
    "scale_attn_inner": False, "scale_attn": False, "scale_fc": False,
}  # fmt: skip


def read_open_clip(folder: Path) -> DualWeights:
    """Read the folder of an OpenCLIP model.

    Raises:
        CheckpointError: A file, a setting or a weight is not as expected.
    """
    settings = Settings.read(folder / CONFIG)
    model = settings.part("model_cfg")
    embed_dim = model.count("embed_dim")
    leaves = dict(read_weights(folder, open_clip=True))
    scale = exp_scale(scalar(leaves, "logit_scale"))
    bias = scalar(leaves, "logit_bias") if "init_logit_bias" in model else None
    vision, text_settings = model.part("vision_cfg"), model.part("text_cfg").with_defaults({"context_length": 77})
    timm = "timm_model_name" in vision
    image, image_projection = timm_tower(vision, leaves) if timm else _visual(vision, model, leaves)
    if "hf_model_name" in text_settings:
        text, text_projection = hf_text_tower(text_settings, leaves, embed_dim)
        prefix = "text.transformer."
    else:
        prefix = "text." if any(name.startswith("text.") for name in leaves) else ""
        text, text_projection = _text(text_settings, model, leaves, prefix)
    config, weights = assemble(
        leaves,
        text,
        image,
        text_prefix=prefix,
        image_prefix="visual.trunk." if timm else "visual.",
        text_projection=text_projection,
        image_projection=image_projection,
        embed_dim=embed_dim,
        preprocessing=open_clip_preprocessing(
            settings.mapping("preprocess_cfg"), image_size=image.image_size, where=f"{settings.where}: preprocess_cfg"
        ),
    )
    # open_clip's own tokenizer reads lower case; those of transformers are left as they are.
    default = "whitespace" if "hf_model_name" in text_settings or "hf_tokenizer_name" in text_settings else "lower"
    rules = TextRules(
        folder,
        min(text_settings.count("context_length"), text.config.positions),
        fixed_length=isinstance(text.config, ClipTextConfig) and text.config.attention == "full",
        clean=_CLEANS[text_settings.part("tokenizer_kwargs").one_of("clean", default, *_CLEANS)],
    )
    return DualWeights(config, weights, rules, scale, bias)


def _visual(vision: Settings, model: Settings, leaves: dict[str, Array]) -> tuple[ImageTower, ProjectionLeaves]:
    """Read open_clip's own ViT, and its projection."""
    vision = vision.with_defaults(
        {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224}
    )
    vision.require(attentional_pool=False, pos_embed_type="learnable", final_ln_after_pool=False, **_UNUSUAL)
    width, has_norm = vision.count("width"), not vision.flag("no_ln_pre", False)
    config = VitConfig(
        patch=vision.side("patch_size"),
        width=width,
        layers=vision.count("layers"),
        heads=width // max(1, vision.count("head_width")),
        mlp_width=int(width * vision.number("mlp_ratio")),
        activation=_activation(vision, model),
        epsilon=_epsilon(vision),
        patch_bias=False,
        class_token=True,
        embedding_norm=has_norm,
        pooling="mean" if vision.one_of("pool_type", "tok", "avg") == "avg" else "cls",
    )
    names = _VISUAL | repeated("transformer.resblocks.{}.", config.layers, _LAYER)
    if has_norm:
        names |= norm({"ln_pre": "embedding_norm"})
    if "visual.proj" in leaves:
        leaves["visual.proj"] = leaves["visual.proj"].T  # (D, E), unlike the weight of a linear module
    return ImageTower(config, vision.side("image_size"), names), ProjectionLeaves(
        LINEAR, {"visual.proj": "linear.kernel"}
    )


def _text(text: Settings, model: Settings, leaves: dict[str, Array], prefix: str) -> tuple[TextTower, ProjectionLeaves]:
    """Read open_clip's own text tower, and its projection: CLIP's, or with other settings SigLIP's."""
    text = text.with_defaults({"vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0})
    text.require(embed_cls=False, use_pad_mask=False, **_UNUSUAL)
    pooling = text.one_of("pool_type", *_POOLINGS)
    width = text.count("width")
    config = ClipTextConfig(
        vocabulary=text.count("vocab_size"),
        width=width,
        layers=text.count("layers"),
        heads=text.count("heads"),
        mlp_width=int(width * text.number("mlp_ratio")),
        positions=text.count("context_length"),
        activation=_activation(text, model),
        epsilon=_epsilon(text),
        attention="full" if text.flag("no_causal_mask", False) else "causal",
        pooling=_POOLINGS[pooling],
        eos_token=text.with_defaults({"eos_id": 2}).count("eos_id") if pooling == "eos" else None,
    )
    names = _TEXT | repeated("transformer.resblocks.{}.", config.layers, _LAYER)
    tower = TextTower(config, names, ("attn_mask",))  # the causal mask, which old versions saved
    if text.one_of("proj_type", "linear", "none") == "none":
        return tower, ProjectionLeaves(NO_PROJECTION, {})
    if text.flag("proj_bias", False):
        names = linear({f"{prefix}text_projection": "linear"})
        return tower, ProjectionLeaves(ProjectionConfig(bias=True), names)
    if (name := f"{prefix}text_projection") in leaves:
        leaves[name] = leaves[name].T  # (D, E), unlike the weight of a linear module
    return tower, ProjectionLeaves(LINEAR, {name: "linear.kernel"})


def _activation(part: Settings, model: Settings) -> Activation:
    arguments = part.mapping("act_kwargs")
    if model.flag("quick_gelu", False):
        return "quick_gelu"
    if arguments not in ({}, {"approximate": "tanh"}):
        raise part.error("act_kwargs", "{'approximate': 'tanh'}")
    return "gelu_tanh" if arguments else "gelu"


def _epsilon(part: Settings) -> float:
    return part.part("norm_kwargs").with_defaults({"eps": 1e-5}).number("eps")
