"""Tiny random checkpoints that the reference libraries write, and the embeddings that these libraries give."""

import enum
import json
import sys
import types
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax.serialization import msgpack_serialize

from support.reference import torch, transformers

SIZE, PATCH, DIM = 40, 8, 24
VOCABULARY, POSITIONS, EOS = 100, 30, 99
VISION = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 3,
    "image_size": SIZE, "patch_size": PATCH,
}  # fmt: skip
TEXT = {
    "hidden_size": 36, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 3,
    "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS,
}  # fmt: skip
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)

Encode = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Oracle:
    """A checkpoint on disk, and what its library makes of pixels (B, S, S, 3) uint8 and of ids and mask (B, L)."""

    folder: Path
    image: Encode
    text: Encode
    logit_scale: float
    logit_bias: float | None = None
    images: Path | None = None  # the other half of a pair
    pad: int = 0
    ends: bool = False  # texts end with EOS, and nothing else is EOS
    full_length: bool = False  # texts are padded to POSITIONS


def texts(oracle: Oracle, batch: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask (B, L), the lengths ragged."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, POSITIONS - 3, batch)  # RoBERTa's positions begin at 2
    width = POSITIONS if oracle.full_length else lengths.max()
    mask = (np.arange(width) < lengths[:, None]).astype(np.int64)
    ids = rng.integers(5, EOS, mask.shape)
    if oracle.ends:
        ids[np.arange(batch), lengths - 1] = EOS
    return np.where(mask == 1, ids, oracle.pad), mask


def pixels(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, SIZE, SIZE, 3)).astype(np.uint8)


def _randomised(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights that are far enough from their first values for every one of them to matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.rpartition(".")[2] not in ("logit_scale", "logit_bias"):
                parameter += noise * 0.15
            else:
                parameter += noise * 0.01
    return model.eval()


def _normed(features: Any) -> np.ndarray:
    features = getattr(features, "pooler_output", features)
    return torch.nn.functional.normalize(features, dim=-1).detach().numpy()


def values_of(pixels: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    scaled = torch.from_numpy(pixels).float() / 255
    return ((scaled - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2)


def _transformers_oracle(model: Any, folder: Path, *, half: bool, **fields: Any) -> Oracle:
    mean, std = (HALF, HALF) if half else (CLIP_MEAN, CLIP_STD)

    @torch.no_grad()
    def image(pixels: np.ndarray) -> np.ndarray:
        return _normed(model.get_image_features(pixel_values=values_of(pixels, mean, std)))

    @torch.no_grad()
    def text(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        inputs = {"input_ids": torch.from_numpy(ids)}
        if not fields.get("full_length"):
            inputs["attention_mask"] = torch.from_numpy(mask)
        return _normed(model.get_text_features(**inputs))

    return Oracle(folder, image, text, model.logit_scale.detach().exp().item(), **fields)


_TEXTS = {
    "bert": transformers.BertConfig(**TEXT),
    "roberta": transformers.RobertaConfig(**TEXT, layer_norm_eps=1e-5, type_vocab_size=1),
    "xlm-roberta": transformers.XLMRobertaConfig(**TEXT, layer_norm_eps=1e-5, type_vocab_size=1),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, dim=36, hidden_dim=72, n_layers=2, n_heads=3
    ),
}
_VISIONS = {
    "clip": transformers.CLIPVisionConfig(**VISION),
    "clip-gelu": transformers.CLIPVisionConfig(**VISION, hidden_act="gelu"),
    "vit": transformers.ViTConfig(**VISION),
    "siglip": transformers.SiglipVisionConfig(**VISION),
}


def vision_text_model(text: str, vision: str) -> Any:
    config = transformers.VisionTextDualEncoderConfig(
        vision_config=_VISIONS[vision].to_dict(), text_config=_TEXTS[text].to_dict(), projection_dim=DIM
    )
    return _randomised(transformers.VisionTextDualEncoderModel(config))


def vision_text(folder: Path, text: str, vision: str) -> Oracle:
    """As transformers 5 writes it."""
    model = vision_text_model(text, vision)
    model.save_pretrained(folder)
    return _transformers_oracle(model, folder, half="clip" not in vision, pad=0 if text == "bert" else 1)


def vision_text_4(folder: Path, text: str, vision: str) -> Oracle:
    """As transformers 4 wrote it: another module around the image tower, and buffers that count positions."""
    oracle = vision_text(folder, text, vision)
    from safetensors.torch import load_file

    leaves = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if vision != "vit":
        nested = "vision_model.vision_model."
        leaves = {name.replace("vision_model.", nested, 1): values for name, values in leaves.items()}
        leaves[f"{nested}embeddings.position_ids"] = torch.arange((SIZE // PATCH) ** 2 + (vision == "clip"))[None]
    leaves["text_model.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    torch.save(leaves, folder / "pytorch_model.bin")
    return oracle


def hybrid_clip(folder: Path, *, logit_scale: float | None = None) -> Oracle:
    """The tree of the Flax script: kernels with their inputs first, `scale` and `embedding` for `weight`."""
    model = vision_text_model("bert", "clip")
    if logit_scale is not None:
        model.logit_scale.data.fill_(logit_scale)
    config = model.config.to_dict() | {"model_type": "hybrid-clip", "architectures": None, "seed": 42}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config, default=str))
    tree: dict[str, Any] = {}
    for path, module in model.named_modules():
        parts = path.replace("vision_model", "vision_model.vision_model", 1).split(".")
        for leaf, parameter in module.named_parameters(recurse=False):
            values = parameter.detach().numpy()
            if isinstance(module, torch.nn.Linear) and leaf == "weight":
                leaf, values = "kernel", values.T
            elif isinstance(module, torch.nn.Conv2d):
                leaf, values = "kernel", values.transpose(2, 3, 1, 0)
            elif isinstance(module, torch.nn.LayerNorm) and leaf == "weight":
                leaf = "scale"
            elif isinstance(module, torch.nn.Embedding):
                leaf = "embedding"
            place = tree
            for part in filter(None, parts):
                place = place.setdefault(part, {})
            place[leaf] = np.ascontiguousarray(values)
    (folder / "flax_model.msgpack").write_bytes(msgpack_serialize(tree))
    return _transformers_oracle(model, folder, half=False)


def clip(folder: Path, *, eos: int = EOS, activation: str = "quick_gelu", dtype: str = "float32") -> Oracle:
    """CLIP; with `eos` 2 its end is the highest id, as in files from before transformers 4.31."""
    tokens = {"eos_token_id": eos, "bos_token_id": 1, "pad_token_id": 0, "hidden_act": activation}
    config = transformers.CLIPConfig(
        text_config={**TEXT, **tokens}, vision_config={**VISION, "hidden_act": activation}, projection_dim=DIM
    )
    model = _randomised(transformers.CLIPModel(config))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    return _transformers_oracle(model.float(), folder, half=False, pad=EOS, ends=True)


def siglip(folder: Path) -> Oracle:
    config = transformers.SiglipConfig(
        text_config={**TEXT, "hidden_size": 48, "eos_token_id": 1, "bos_token_id": 1}, vision_config=VISION
    )
    model = _randomised(transformers.SiglipModel(config))
    model.save_pretrained(folder)
    oracle = _transformers_oracle(model, folder, half=True, pad=1, full_length=True)
    return replace(oracle, logit_bias=model.logit_bias.detach().item())


def sentence_transformers_pair(folder: Path, *, nested: bool) -> Oracle:
    """mCLIP's two halves; the image half as sentence-transformers has it, a module in a folder, or as a bare CLIP."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    words = [f"[unused{i}]" for i in range(VOCABULARY - 5)]
    source = folder / "distilbert"
    source.mkdir(parents=True)
    (source / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    transformers.DistilBertTokenizerFast.from_pretrained(source).save_pretrained(source)
    transformers.DistilBertModel(_TEXTS["distilbert"]).save_pretrained(source)
    dense = modules.Dense(36, DIM, bias=False, activation_function=torch.nn.Identity())
    model = SentenceTransformer(
        modules=[modules.Transformer(str(source)), modules.Pooling(36, "mean"), dense], device="cpu"
    )
    _randomised(model).save(str(folder / "text"))
    images = folder / "images"
    oracle = clip(images / "0_CLIPModel" if nested else images)
    if nested:
        entry = '[{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}]'
        (images / "modules.json").write_text(entry)

    @torch.no_grad()
    def text(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask), "modality": "text"}
        return _normed(model(inputs)["sentence_embedding"])

    return replace(oracle, folder=folder / "text", images=images, text=text, pad=0, ends=False)


_Interpolation = enum.Enum("_Interpolation", ["NEAREST", "BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS"])


@contextmanager
def _without_torchvision():
    """PyPI's torchvision does not import beside the CPU build of torch, and open_clip and timm import it for transforms
    that no model needs: empty modules stand for it while they do."""
    names = ["torchvision", "torchvision.transforms", "torchvision.transforms.functional", "torchvision.ops"]
    names += [
        "torchvision.ops.misc",
        "torchvision.models",
        "torchvision.models.feature_extraction",
        "torchvision.datasets",
    ]

    class Module(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return _Interpolation if name == "InterpolationMode" else type(name, (torch.nn.Module,), {})

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            module = Module(name)
            module.__path__ = []
            patch.setitem(sys.modules, name, module)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)
        yield


def open_clip_module() -> Any:
    with _without_torchvision():
        import open_clip
        import timm  # noqa: F401
    return open_clip


def open_clip(
    folder: Path, vision: dict[str, Any], text: dict[str, Any], hf: Any = None, *, embed_dim: int = DIM, **fields: Any
) -> Oracle:
    """A model of open_clip's own, with the configuration that its hub folders hold."""
    library = open_clip_module()
    from open_clip import hf_model, timm_model
    from open_clip.push_to_hf_hub import save_for_hf

    settings: dict[str, Any] = {"embed_dim": embed_dim, "vision_cfg": {"image_size": SIZE, **vision}, "text_cfg": text}
    settings |= fields
    with pytest.MonkeyPatch.context() as patch:
        if hf is not None:  # what the hub would have said of `hf_model_name`, but for the sizes
            patch.setattr(hf_model.AutoConfig, "from_pretrained", lambda _: hf)
        create = timm_model.timm.create_model if "timm_model_name" in vision else None
        if create:  # the architecture of that name, smaller
            size = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": 48, "depth": 2, "mlp_ratio": 1.5}
            patch.setattr(timm_model.timm, "create_model", lambda name, **options: create(name, **options, **size))
        arguments = {key: value for key, value in settings.items() if key != "custom_text"}
        is_custom = settings.get("custom_text") or hf is not None
        model = (library.CustomTextCLIP if is_custom else library.CLIP)(**arguments)
    _randomised(model)
    model.visual.image_mean, model.visual.image_std = HALF, (0.25, 0.3, 0.35)
    tokenizer = types.SimpleNamespace(save_pretrained=lambda _: None)  # tokens have tests of their own
    save_for_hf(model, tokenizer, settings, str(folder), safe_serialization=True)

    @torch.no_grad()
    def image(pixels: np.ndarray) -> np.ndarray:
        return _normed(model.encode_image(values_of(pixels, HALF, (0.25, 0.3, 0.35))))

    @torch.no_grad()
    def encode_text(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return _normed(model.encode_text(torch.from_numpy(ids)))  # it finds padding by its id

    bias = None if model.logit_bias is None else model.logit_bias.detach().item()
    return Oracle(folder, image, encode_text, model.logit_scale.detach().exp().item(), bias)


_OPEN_CLIP_VISION = {"layers": 2, "width": 48, "head_width": 16, "patch_size": PATCH, "mlp_ratio": 1.5}
_TIMM_VISION = {"timm_model_name": "vit_base_patch16_siglip_384", "timm_pool": "map", "timm_proj": "none"}
_OWN_TEXT = {"context_length": POSITIONS, "vocab_size": VOCABULARY, "width": 36, "heads": 3, "layers": 2}


def _hf_text(name: str, pooler: str, projection: str | None) -> dict[str, Any]:
    settings = {"hf_model_name": name, "hf_model_pretrained": False, "hf_pooler_type": pooler}
    return settings | ({} if projection is None else {"hf_proj_type": projection})


def open_clip_xlm_r(folder: Path, size: str, pooler: str, projection: str | None) -> Oracle:
    heads = {"base": 12, "large": 16}[size]
    hf = transformers.XLMRobertaConfig(
        **TEXT | {"num_attention_heads": heads, "hidden_size": 4 * heads}, layer_norm_eps=1e-5, type_vocab_size=1
    )
    text = _hf_text(f"xlm-roberta-{size}", pooler, projection)
    return replace(open_clip(folder, _OPEN_CLIP_VISION, text, hf), pad=1)


def open_clip_mean(folder: Path) -> Oracle:
    """A ViT without its norm before the layers, read by the mean of its patches; a text tower by its first token."""
    hf = transformers.XLMRobertaConfig(**TEXT | {"num_attention_heads": 12}, layer_norm_eps=1e-5, type_vocab_size=1)
    vision = {**_OPEN_CLIP_VISION, "pool_type": "avg", "no_ln_pre": True}
    text = _hf_text("xlm-roberta-base", "cls_last_hidden_state_pooler", "linear")
    return replace(open_clip(folder, vision, text, hf), pad=1)


def open_clip_nllb(folder: Path) -> Oracle:
    hf = transformers.M2M100Config(
        vocab_size=VOCABULARY, d_model=32, encoder_layers=2, encoder_ffn_dim=72, encoder_attention_heads=16,
        decoder_layers=1, decoder_ffn_dim=8, decoder_attention_heads=4, max_position_embeddings=1024,
    )  # fmt: skip
    text = _hf_text("facebook/nllb-200-distilled-600M", "cls_pooler", "linear")
    fields = {"embed_dim": 48, "init_logit_bias": -10, "custom_text": True}
    return replace(open_clip(folder, _TIMM_VISION, text, hf, **fields), pad=1)


def open_clip_clip(folder: Path, *, quick_gelu: bool) -> Oracle:
    oracle = open_clip(folder, _OPEN_CLIP_VISION, _OWN_TEXT, quick_gelu=quick_gelu)
    return replace(oracle, ends=True, full_length=True)


def open_clip_siglip(folder: Path, variant: str) -> Oracle:
    text: dict[str, Any] = {
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
    }
    vision = dict(_TIMM_VISION)
    if variant == "siglip2":
        text["act_kwargs"] = {"approximate": "tanh"}
        vision["timm_model_name"] = "vit_base_patch32_siglip_256"
    fields = {"embed_dim": 48, "init_logit_bias": -10, "custom_text": True}
    return replace(open_clip(folder, vision, _OWN_TEXT | text, **fields), pad=1, full_length=True)


ORACLES: dict[str, Callable[[Path], Oracle]] = {
    "VisionTextDualEncoder, BERT x CLIP": lambda folder: vision_text(folder, "bert", "clip"),
    "VisionTextDualEncoder, BERT x CLIP, gelu": lambda folder: vision_text(folder, "bert", "clip-gelu"),
    "VisionTextDualEncoder, RoBERTa x ViT": lambda folder: vision_text(folder, "roberta", "vit"),
    "VisionTextDualEncoder, XLM-R x SigLIP": lambda folder: vision_text(folder, "xlm-roberta", "siglip"),
    "the same of transformers 4, BERT x CLIP": lambda folder: vision_text_4(folder, "bert", "clip"),
    "the same of transformers 4, RoBERTa x SigLIP": lambda folder: vision_text_4(folder, "roberta", "siglip"),
    "the same of transformers 4, BERT x ViT": lambda folder: vision_text_4(folder, "bert", "vit"),
    "hybrid-clip": hybrid_clip,
    "CLIP, end by eos_token_id": clip,
    "CLIP, end by highest id": lambda folder: clip(folder, eos=2),
    "CLIP of LAION, gelu": lambda folder: clip(folder, activation="gelu"),
    "CLIP in fp16": lambda folder: clip(folder, dtype="float16"),
    "CLIP in bf16": lambda folder: clip(folder, dtype="bfloat16"),
    "SigLIP": siglip,
    "OpenCLIP, XLM-R base, mean, mlp": lambda folder: open_clip_xlm_r(folder, "base", "mean_pooler", None),
    "OpenCLIP, XLM-R large, mean, linear": lambda folder: open_clip_xlm_r(folder, "large", "mean_pooler", "linear"),
    "OpenCLIP, XLM-R base, pooler": lambda folder: open_clip_xlm_r(folder, "base", "cls_pooler", "mlp"),
    "OpenCLIP, XLM-R by first token, ViT by mean": open_clip_mean,
    "OpenCLIP, NLLB-SigLIP": open_clip_nllb,
    "OpenCLIP, CLIP": lambda folder: open_clip_clip(folder, quick_gelu=False),
    "OpenCLIP, CLIP of OpenAI": lambda folder: open_clip_clip(folder, quick_gelu=True),
    "OpenCLIP, SigLIP": lambda folder: open_clip_siglip(folder, "siglip"),
    "OpenCLIP, SigLIP2": lambda folder: open_clip_siglip(folder, "siglip2"),
    "mCLIP, image half of sentence-transformers": lambda folder: sentence_transformers_pair(folder, nested=True),
    "mCLIP, image half of transformers": lambda folder: sentence_transformers_pair(folder, nested=False),
}
