"""Define the sizes of the towers as plain data, as `clipita.json` states them. Imports neither JAX nor ONNX."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypeVar

from clipita.bundles.bundle import BundleConfig
from clipita.bundles.strict import from_mapping
from clipita.errors import CheckpointError
from clipita.images.pixels import Preprocessing
from clipita.towers.efficientnet_config import EfficientNetLiteConfig

T = TypeVar("T")


Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu"]


@dataclass(frozen=True)
class VitConfig:
    """The size of a vision transformer: square patches, learned positions, layer norms before attention and MLP.

    Attributes:
        patch_bias: Whether the map from a patch to a token has a bias.
        class_token: Whether a learned token stands before the patches.
        embedding_norm: Whether there is a layer norm before the first layer, as in CLIP.
        pooling: "cls": the class token; "pooler": tanh(linear(class token)); "mean": the mean of the patches; "map":
            one learned query attends to all tokens, and an MLP follows. The last layer norm comes before any of them.
    """

    patch: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: Activation
    epsilon: float
    patch_bias: bool
    class_token: bool
    embedding_norm: bool
    pooling: Literal["cls", "pooler", "mean", "map"]

    @property
    def features(self) -> int:
        """Width of the pooled features."""
        return self.width

    def positions(self, image_size: int) -> int:
        """Return the number of tokens of a square image of that side."""
        return (image_size // self.patch) ** 2 + self.class_token


@dataclass(frozen=True)
class BertConfig:
    """The size of a BERT: an encoder with learned positions and layer norms after attention and MLP.

    A RoBERTa is a BERT without its first positions, and a DistilBERT one without token types.

    Attributes:
        pooling: "mean": the mean of all tokens; "cls": the first token; "pooler": tanh(linear(first)).
    """

    vocabulary: int
    width: int = 384
    layers: int = 12
    heads: int = 12
    mlp_width: int = 1536
    positions: int = 512
    token_types: int = 2
    epsilon: float = 1e-12
    pooling: Literal["mean", "cls", "pooler"] = "mean"
    activation: Activation = "gelu"

    @property
    def features(self) -> int:
        """Width of the pooled features."""
        return self.width


@dataclass(frozen=True)
class ClipTextConfig:
    """The size of the text transformer of CLIP, SigLIP or M2M100's encoder: layer norms before attention and MLP.

    Attributes:
        attention: The tokens that a token sees: "causal": itself and those before it; "masked": all except padding;
            "full": all and padding too, so that texts have to be padded as in training, to `positions`.
        pooling: "eos": the first `eos_token`; "highest": the first token of the highest id, by which CLIP's own code
            finds the end; "last": the last, padding or not; "cls": the first.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    positions: int
    activation: Activation
    epsilon: float
    attention: Literal["causal", "masked", "full"]
    pooling: Literal["eos", "highest", "last", "cls"]
    eos_token: int | None = None

    def __post_init__(self) -> None:
        if (self.eos_token is None) == (self.pooling == "eos"):
            raise ValueError(f"eos_token is for pooling 'eos' and no other, but it is {self.eos_token!r}")

    @property
    def features(self) -> int:
        """Width of the pooled features."""
        return self.width


ImageConfig = EfficientNetLiteConfig | VitConfig
TextConfig = BertConfig | ClipTextConfig
TransformerConfig = VitConfig | BertConfig | ClipTextConfig


@dataclass(frozen=True)
class ProjectionConfig:
    """The map from pooled features to the embedding: linear, an MLP of width `hidden`, the sum of both, or none.

    CLIP's maps have no bias. Towers that were trained for other tasks need one, since their features lie far from zero.

    Attributes:
        hidden: The width of the MLP's hidden layer (exact GELU); None for no MLP.
        bias: Whether the linear map, or both maps of an MLP alone, have a bias. An MLP beside a linear map always does.
        linear: Whether there is a linear map. Without it and an MLP, the features are the embedding.
    """

    hidden: int | None = None
    bias: bool = False
    linear: bool = True


NO_PROJECTION = ProjectionConfig(linear=False)


@dataclass(frozen=True)
class DualConfig:
    """The sizes of two towers, and of the projections from them into one space of width `embed_dim`."""

    image: ImageConfig
    text: TextConfig
    preprocessing: Preprocessing
    embed_dim: int
    image_projection: ProjectionConfig = ProjectionConfig()
    text_projection: ProjectionConfig = ProjectionConfig()

    @classmethod
    def from_bundle(cls, config: BundleConfig, preprocessing: Preprocessing | None = None) -> Self:
        """Read the architecture out of `clipita.json`.

        Args:
            config: What the file says.
            preprocessing: The image tower's, if it has been read already; None means to read it here.

        Raises:
            CheckpointError: A tower is of an unknown kind, has unknown, missing or mistyped fields, or sizes that do
                not fit together.
        """
        image, text = dict(config.image), dict(config.text)
        described = image.pop("preprocessing")
        text.pop("tokenizer")
        dual = cls(
            image=_of_kind(_IMAGE_KINDS, image, "image"),
            text=_of_kind(_TEXT_KINDS, text, "text"),
            preprocessing=preprocessing or Preprocessing.from_dict(described),
            embed_dim=config.embed_dim,
            image_projection=from_mapping(ProjectionConfig, dict(config.image_projection), "image_projection"),
            text_projection=from_mapping(ProjectionConfig, dict(config.text_projection), "text_projection"),
        )
        dual._check_sizes()
        return dual

    def _check_sizes(self) -> None:
        for name, tower in (("image", self.image), ("text", self.text)):
            if not isinstance(tower, EfficientNetLiteConfig) and tower.width % tower.heads:
                raise CheckpointError(
                    f"{name}: its width of {tower.width} cannot be divided by {tower.heads} heads. Export the "
                    "bundle again."
                )
        if isinstance(self.image, VitConfig) and self.image.patch > self.preprocessing.image_size:
            raise CheckpointError(
                f"image: its patches of {self.image.patch} pixels are larger than the image, which has "
                f"{self.preprocessing.image_size}. Export the bundle again."
            )

    def image_fields(self) -> dict[str, Any]:
        """Return the image tower's fields for `clipita.json`, without its preprocessing."""
        return _with_kind(_IMAGE_KINDS, self.image)

    def text_fields(self) -> dict[str, Any]:
        """Return the text tower's fields for `clipita.json`, without its tokenizer."""
        return _with_kind(_TEXT_KINDS, self.text)


_IMAGE_KINDS: dict[str, type[ImageConfig]] = {"efficientnet-lite": EfficientNetLiteConfig, "vit": VitConfig}
_TEXT_KINDS: dict[str, type[TextConfig]] = {"bert": BertConfig, "clip-text": ClipTextConfig}


def are_known(config: BundleConfig) -> bool:
    """Tell whether both towers are of kinds that are defined here. ONNX Runtime runs others as well."""
    return config.image.get("kind") in _IMAGE_KINDS and config.text.get("kind") in _TEXT_KINDS


def _of_kind(kinds: Mapping[str, type[T]], fields: dict[str, Any], tower: str) -> T:
    kind = fields.pop("kind", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise CheckpointError(
            f"the {tower} tower is of kind {str(kind)[:80]!r}; this clipita knows {', '.join(map(repr, kinds))}. "
            "Upgrade clipita."
        )
    try:
        return from_mapping(kinds[kind], fields, tower)
    except ValueError as error:
        raise CheckpointError(f"{tower}: {error}. Export the bundle again.") from error


def _with_kind(kinds: Mapping[str, type[Any]], config: ImageConfig | TextConfig) -> dict[str, Any]:
    (kind,) = (kind for kind, cls in kinds.items() if cls is type(config))
    return {"kind": kind, **asdict(config)}
