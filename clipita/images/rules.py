"""Define `Preprocessing`, the rules by which an image becomes pixels for a tower."""

import dataclasses
from typing import Any, Literal

from clipita.bundles.strict import from_mapping
from clipita.errors import CheckpointError


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The rules by which an image becomes pixels for a tower, as a bundle states them.

    Attributes:
        image_size: The side of the square that the image tower reads, in pixels.
        resize: "shortest": the shorter side becomes `short_side`, then the center is cropped; "longest": the longer
            side becomes `image_size`, and the rest of the square has the gray level `fill`; "squash": the whole image
            becomes the square, without regard to its shape.
        interpolation: Pillow's filter of that name, antialiased.
        mean: The mean of red, green and blue, in units of 0..255.
        std: Their standard deviation. The graph computes (pixels - mean) / std; `load_pixels` does not.
        short_side: The length of the shorter side for "shortest"; None means `image_size`.
        crop: How to round the beginning of the crop if the two margins cannot be equal: "round" half to even, as
            torchvision and open_clip do, or "floor", as transformers' image processors do.
        transparency: "white": the image is laid on white; "drop": the colors under its transparency are shown, as by
            Pillow's convert("RGB"), which transformers and open_clip use.
        fill: The gray level for "longest", 0..255.
    """

    image_size: int
    resize: Literal["shortest", "longest", "squash"]
    interpolation: Literal["bicubic", "bilinear", "nearest"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    short_side: int | None = None
    crop: Literal["round", "floor"] = "round"
    transparency: Literal["white", "drop"] = "white"
    fill: int = 0

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"image_size must be 1 or more, but it is {self.image_size}")
        if self.short_side is not None and self.short_side < self.image_size:
            raise ValueError(f"short_side must be {self.image_size} or more, but it is {self.short_side}")
        if not 0 <= self.fill <= 255:
            raise ValueError(f"fill must be a gray level from 0 to 255, but it is {self.fill}")
        if len(self.mean) != 3 or not all(0 <= value <= 255 for value in self.mean):
            raise ValueError(f"mean must be 3 numbers from 0 to 255 (not 0 to 1), but it is {list(self.mean)}")
        if len(self.std) != 3 or not all(0 < value <= 255 for value in self.std):
            raise ValueError(f"std must be 3 numbers above 0 and up to 255, but it is {list(self.std)}")

    @property
    def mean_gray(self) -> int:
        """The level 0..255 that says nothing to the tower: the mean of the photographs that it was trained on."""
        return round(sum(self.mean) / 3)

    @classmethod
    def from_dict(cls, data: object, where: str = "image.preprocessing") -> "Preprocessing":
        """Read the object in a bundle's `clipita.json`.

        Args:
            data: The object.
            where: The beginning of every message.

        Raises:
            CheckpointError: A key or a value is not known.
        """
        try:
            return from_mapping(cls, data, where)
        except ValueError as error:
            raise CheckpointError(f"{where}: {error}. Export the bundle again.") from error

    def to_dict(self) -> dict[str, Any]:
        """Return the object for a bundle's `clipita.json`; fields that have their default are left out."""
        changed = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }
        return changed | {"mean": list(self.mean), "std": list(self.std)}
