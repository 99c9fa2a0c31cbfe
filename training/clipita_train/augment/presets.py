"""The settings of an augmentation, and presets of them."""

from dataclasses import dataclass, replace

from clipita_train.engine.config import require


@dataclass(frozen=True)
class Augmentation:
    """The limits and probabilities of the random changes; by default only the middle is cropped.

    Where pixels are larger than the result, `crop` places the window at random; without it the window is in the middle.
    """

    brightness: float = 0.0  # factors from 1 - b to 1 + b; the next two likewise
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0  # a turn from -h to h, of at most 0.5
    crop: bool = False
    crop_padding: float = (
        0.0  # how far the window may reach beyond the pixels, as a share of its side; edge pixels are repeated there
    )
    flip: float = 0.0  # the probability; flipping turns left into right, and makes text unreadable
    rotation: float = 0.0  # degrees, to either side
    translation: float = 0.0  # as a share of the side, along both axes
    scale: tuple[float, ...] = (1.0, 1.0)  # lowest, highest
    shear: float = 0.0  # degrees, along both axes
    perspective: float = 0.0  # how far a corner may move inwards, as a share of half the side
    perspective_probability: float = 0.0
    autocontrast: float = 0.0  # the probability
    equalize: float = 0.0  # the probability
    # The level of what affine maps and perspective leave empty; None shows what the pixels have there.
    fill: int | None = None

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation", "crop_padding", "translation"):
            require(0 <= getattr(self, name) <= 1, name, "from 0 to 1", getattr(self, name))
        for name in ("flip", "perspective_probability", "autocontrast", "equalize"):
            require(0 <= getattr(self, name) <= 1, name, "a probability from 0 to 1", getattr(self, name))
        require(0 <= self.hue <= 0.5, "hue", "from 0 to 0.5 turns", self.hue)
        require(0 <= self.rotation <= 180, "rotation", "from 0 to 180 degrees", self.rotation)
        require(0 <= self.shear <= 45, "shear", "from 0 to 45 degrees", self.shear)
        require(0 <= self.perspective < 1, "perspective", "in [0, 1)", self.perspective)
        lowest_first = len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1]
        require(lowest_first, "scale", "two numbers above 0, the lower one first", self.scale)
        require(self.fill is None or 0 <= self.fill <= 255, "fill", "None or a level from 0 to 255", self.fill)

    @property
    def is_colored(self) -> bool:
        """Tell whether brightness, contrast, saturation or hue is changed."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    @property
    def is_affine(self) -> bool:
        """Tell whether there is rotation, translation, scaling or shear."""
        return bool(self.rotation or self.translation or self.shear) or self.scale != (1.0, 1.0)

    @property
    def is_perspective(self) -> bool:
        """Tell whether there is perspective."""
        return self.perspective > 0 and self.perspective_probability > 0


# As in CLIP-Italian's code: hybrid_clip/run_hybrid_clip.py of clip-italian/clip-italian, branch
# feature/backbone_freezing. Its crop moves along the longer side of the photograph; so it does here if the pixels hold
# that whole side.
_AS_CODED = Augmentation(
    hue=0.1,
    crop=True,
    flip=0.5,
    rotation=15,
    translation=0.1,
    scale=(0.8, 1.2),
    shear=15,
    perspective=0.3,
    perspective_probability=0.3,
    autocontrast=0.3,
    equalize=0.3,
    fill=127,
)

PRESETS = {
    "none": Augmentation(),
    "as_coded": _AS_CODED,
    # The write-up (arXiv:2108.08688) also names brightness, contrast and saturation, without their sizes, but no flip.
    "as_described": replace(_AS_CODED, brightness=0.1, contrast=0.1, saturation=0.1, flip=0.0),
    # Ours: changes that a real photograph could have, without empty corners or mirrored text.
    "light": Augmentation(
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        hue=0.02,
        crop=True,
        crop_padding=0.04,
        rotation=5,
        scale=(0.9, 1.2),
        perspective=0.15,
        perspective_probability=0.3,
    ),
}
