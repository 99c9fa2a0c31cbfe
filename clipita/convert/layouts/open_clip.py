"""OpenCLIP's own files: `open_clip_config.json` beside weights under the names of open_clip, timm and transformers.

Source: open_clip 3.3, `model.py`, `transformer.py`, `hf_model.py`, `timm_model.py`; timm 1.0, `vision_transformer.py`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from clipita.convert.layouts.dual import LINEAR, DualWeights, Half, TextRules, assemble
from clipita.convert.layouts.image_towers import ImageTower
from clipita.convert.layouts.leaves import exp_scale, linear, norm, repeated, scalar
from clipita.convert.layouts.settings import Settings
from clipita.convert.layouts.text_towers import TextTower, text_tower
from clipita.convert.preprocessor_config import open_clip_preprocessing
from clipita.convert.quantize import Array
from clipita.convert.readers import read_weights
from clipita.convert.tokenizer_files import Clean
from clipita.errors import CheckpointError
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
_TIMM = {
    "patch_embed.proj.weight": "patch.kernel",
    "patch_embed.proj.bias": "patch.bias",
    "pos_embed": "position.embedding",
    **norm({"norm": "norm", "attn_pool.norm": "head.mlp_norm"}),
    "attn_pool.latent": "head.probe.embedding",
    **linear({
        "attn_pool.q": "head.query",
        "attn_pool.kv": "head.key+value",
        "attn_pool.proj": "head.output",
        "attn_pool.mlp.fc1": "head.mlp_in",
        "attn_pool.mlp.fc2": "head.mlp_out",
    }),
}  # fmt: skip
_TIMM_LAYER = {
    **linear({"attn.qkv": "query+key+value", "attn.proj": "output", "mlp.fc1": "mlp_in", "mlp.fc2": "mlp_out"}),
    **norm({"norm1": "attention_norm", "norm2": "mlp_norm"}),
}

# Sizes are those of the leaves; what they do not show is here, by the last part of `hf_model_name`.
_XLM_R = {"model_type": "xlm-roberta", "layer_norm_eps": 1e-5, "pad_token_id": 1}
_NLLB = {"model_type": "m2m_100", "encoder_attention_heads": 16, "scale_embedding": True, "pad_token_id": 1}
_TEXT_MODELS: dict[str, dict[str, Any]] = {
    "xlm-roberta-base": {**_XLM_R, "num_attention_heads": 12},
    "xlm-roberta-large": {**_XLM_R, "num_attention_heads": 16},
    "roberta-base": {**_XLM_R, "model_type": "roberta", "num_attention_heads": 12},
    "nllb-200-distilled-600M": _NLLB,
    "nllb-200-distilled-1.3B": _NLLB,
}
_TIMM_NAME = re.compile(r"vit_(base|large|so400m|giantopt)_patch\d+_siglip_(?:gap_)?\d+")
_TIMM_HEADS = {"base": 12, "large": 16, "so400m": 16, "giantopt": 16}
# SigLIP's own code has the tanh form everywhere; timm has the exact one but for these.
_TIMM_TANH = re.compile(r"vit_(base_patch32|large_patch16_siglip_512|so400m_patch16|giantopt)")
_POOLINGS: dict[str, Literal["highest", "last", "eos", "cls"]] = {
    "argmax": "highest", "last": "last", "eos": "eos", "first": "cls",
}  # fmt: skip
_CLEANS: dict[str, Clean] = {"whitespace": "whitespace", "lower": "lower", "canonicalize": "canonicalize"}
_UNUSUAL: dict[str, Any] = {
    "ls_init_value": None, "block_type": None, "qk_norm": False, "scaled_cosine_attn": False, "scale_heads": False,
    "scale_attn_inner": False, "scale_attn": False, "scale_fc": False,
}  # fmt: skip


def read_open_clip(folder: Path) -> DualWeights:
    """Reads such a folder. Raises CheckpointError: a file, a setting or a weight is not as expected."""
    settings = Settings.read(folder / CONFIG)
    model = settings.part("model_cfg")
    embed_dim = model.count("embed_dim")
    leaves = dict(read_weights(folder, open_clip=True))
    scale = exp_scale(scalar(leaves, "logit_scale"))
    bias = scalar(leaves, "logit_bias") if "init_logit_bias" in model else None
    vision, text_settings = model.part("vision_cfg"), model.part("text_cfg").with_defaults({"context_length": 77})
    timm = "timm_model_name" in vision
    image, image_half = _timm(vision, leaves) if timm else _visual(vision, model, leaves)
    if "hf_model_name" in text_settings:
        text, text_half = _hf_text(text_settings, leaves, embed_dim)
        prefix = "text.transformer."
    else:
        prefix = "text." if any(name.startswith("text.") for name in leaves) else ""
        text, text_half = _text(text_settings, model, leaves, prefix)
    config, weights = assemble(
        leaves,
        text,
        image,
        text_prefix=prefix,
        image_prefix="visual.trunk." if timm else "visual.",
        text_half=text_half,
        image_half=image_half,
        embed_dim=embed_dim,
        preprocessing=open_clip_preprocessing(
            settings.mapping("preprocess_cfg"), image_size=image.image_size, where=f"{settings.where}: preprocess_cfg"
        ),
    )
    own_text = isinstance(text.config, ClipTextConfig) and "hf_tokenizer_name" not in text_settings
    default = "lower" if own_text else "whitespace"
    rules = TextRules(
        folder,
        text_settings.count("context_length"),
        fixed_length=isinstance(text.config, ClipTextConfig) and text.config.attention == "full",
        clean=_CLEANS[_one_of(text_settings.part("tokenizer_kwargs"), "clean", default, *_CLEANS)],
    )
    return DualWeights(config, weights, rules, scale, bias)


def _visual(vision: Settings, model: Settings, leaves: dict[str, Array]) -> tuple[ImageTower, Half]:
    """open_clip's own ViT."""
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
        pooling="mean" if _one_of(vision, "pool_type", "tok", "avg") == "avg" else "cls",
    )
    names = _VISUAL | repeated("transformer.resblocks.{}.", config.layers, _LAYER)
    if has_norm:
        names |= norm({"ln_pre": "embedding_norm"})
    if "visual.proj" in leaves:
        leaves["visual.proj"] = leaves["visual.proj"].T  # (D, E), unlike the weight of a linear module
    return ImageTower(config, vision.side("image_size"), names), Half(LINEAR, {"visual.proj": "linear.kernel"})


def _timm(vision: Settings, leaves: Mapping[str, Array]) -> tuple[ImageTower, Half]:
    """timm's SigLIP ViT."""
    name = vision.text("timm_model_name")
    match = _TIMM_NAME.fullmatch(name)
    if match is None:
        raise vision.error("timm_model_name", "one of timm's SigLIP towers, e.g. 'vit_base_patch16_siglip_384'")
    vision.require(timm_pool="map")
    prefix = "visual.trunk."
    width, _, patch, _ = _shape(leaves, f"{prefix}patch_embed.proj.weight", 4)
    config = VitConfig(
        patch=patch,
        width=width,
        layers=_count(leaves, f"{prefix}blocks."),
        heads=_TIMM_HEADS[match[1]],
        mlp_width=_shape(leaves, f"{prefix}blocks.0.mlp.fc1.weight", 2)[0],
        activation="gelu_tanh" if _TIMM_TANH.match(name) else "gelu",
        epsilon=1e-6,
        patch_bias=True,
        class_token=False,
        embedding_norm=False,
        pooling="map",
    )
    tower = ImageTower(config, vision.side("image_size"), _TIMM | repeated("blocks.{}.", config.layers, _TIMM_LAYER))
    if _one_of(vision, "timm_proj", "linear", "none") == "none":
        return tower, Half(NO_PROJECTION, {})
    bias = vision.flag("timm_proj_bias", False)
    names = {"visual.head.proj.weight": "linear.kernel"} | ({"visual.head.proj.bias": "linear.bias"} if bias else {})
    return tower, Half(ProjectionConfig(bias=bias), names)


def _hf_text(text: Settings, leaves: Mapping[str, Array], embed_dim: int) -> tuple[TextTower, Half]:
    """A tower of the transformers library, and open_clip's pooling and projection."""
    name = text.text("hf_model_name").rpartition("/")[2]
    if name not in _TEXT_MODELS:
        raise text.error("hf_model_name", f"one of {', '.join(_TEXT_MODELS)}")
    known, prefix = _TEXT_MODELS[name], "text.transformer."
    poolers = {"mean_pooler": "mean", "cls_pooler": "pooler", "cls_last_hidden_state_pooler": "cls"}
    pooler = _one_of(text, "hf_pooler_type", *poolers)
    if known["model_type"] == "m2m_100":
        if pooler == "mean_pooler":
            raise text.error("hf_pooler_type", "'cls_pooler' for this text tower")
        sizes = {
            "vocab_size": _shape(leaves, f"{prefix}embed_tokens.weight", 2)[0],
            "d_model": _shape(leaves, f"{prefix}embed_tokens.weight", 2)[1],
            "encoder_layers": _count(leaves, f"{prefix}layers."),
            "encoder_ffn_dim": _shape(leaves, f"{prefix}layers.0.fc1.weight", 2)[0],
        }
        width = sizes["d_model"]
    else:
        embeddings, layer = f"{prefix}embeddings.", f"{prefix}encoder.layer."
        sizes = {
            "vocab_size": _shape(leaves, f"{embeddings}word_embeddings.weight", 2)[0],
            "hidden_size": _shape(leaves, f"{embeddings}word_embeddings.weight", 2)[1],
            "max_position_embeddings": _shape(leaves, f"{embeddings}position_embeddings.weight", 2)[0],
            "type_vocab_size": _shape(leaves, f"{embeddings}token_type_embeddings.weight", 2)[0],
            "num_hidden_layers": _count(leaves, layer),
            "intermediate_size": _shape(leaves, f"{layer}0.intermediate.dense.weight", 2)[0],
        }
        width = sizes["hidden_size"]
    tower = text_tower(Settings({**known, **sizes}, f"{text.where}: {name}"), pooling=poolers[pooler])
    if _one_of(text, "hf_proj_type", "mlp", "linear", "") == "mlp":
        hidden = (width + embed_dim) // 2
        names = {"text.proj.0.weight": "mlp_in.kernel", "text.proj.2.weight": "mlp_out.kernel"}
        return tower, Half(ProjectionConfig(hidden, linear=False), names)
    if "text.proj.weight" not in leaves and width == embed_dim:
        return tower, Half(NO_PROJECTION, {})
    return tower, Half(LINEAR, {"text.proj.weight": "linear.kernel"})


def _text(text: Settings, model: Settings, leaves: dict[str, Array], prefix: str) -> tuple[TextTower, Half]:
    """open_clip's own text tower: CLIP's, or with other settings SigLIP's."""
    text = text.with_defaults({"vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0})
    text.require(embed_cls=False, use_pad_mask=False, **_UNUSUAL)
    pooling = _one_of(text, "pool_type", *_POOLINGS)
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
    tower = TextTower(config, names, ("attn_mask",))  # the causal mask; saved by old versions
    if _one_of(text, "proj_type", "linear", "none") == "none":
        return tower, Half(NO_PROJECTION, {})
    if text.flag("proj_bias", False):
        names = linear({f"{prefix}text_projection": "linear"})
        return tower, Half(ProjectionConfig(bias=True), names)
    if (name := f"{prefix}text_projection") in leaves:
        leaves[name] = leaves[name].T  # (D, E), unlike the weight of a linear module
    return tower, Half(LINEAR, {name: "linear.kernel"})


def _activation(part: Settings, model: Settings) -> Activation:
    arguments = part.mapping("act_kwargs")
    if model.flag("quick_gelu", False):
        return "quick_gelu"
    if arguments not in ({}, {"approximate": "tanh"}):
        raise part.error("act_kwargs", "{'approximate': 'tanh'}")
    return "gelu_tanh" if arguments else "gelu"


def _epsilon(part: Settings) -> float:
    return part.part("norm_kwargs").with_defaults({"eps": 1e-5}).number("eps")


def _one_of(part: Settings, key: str, *known: str) -> str:
    """The first of what is known is the default."""
    value = part.with_defaults({key: known[0]}).text(key)
    if value not in known:
        raise part.error(key, f"one of {', '.join(map(repr, known))}")
    return value


def _shape(leaves: Mapping[str, Array], name: str, rank: int) -> tuple[int, ...]:
    if name not in leaves or leaves[name].ndim != rank:
        found = leaves[name].shape if name in leaves else "missing"
        raise CheckpointError(f"the weight {name!r} must be there and have {rank} axes, but it is {found}.")
    return leaves[name].shape


def _count(leaves: Mapping[str, Array], prefix: str) -> int:
    """How many layers there are below `prefix`."""
    numbers = {name[len(prefix) :].partition(".")[0] for name in leaves if name.startswith(prefix)}
    return sum(number.isdecimal() for number in numbers)
