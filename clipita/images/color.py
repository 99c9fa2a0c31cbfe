"""Convert the colors of a picture with an ICC profile to sRGB, which image towers are trained on.

Phones write Display P3 by default, cameras may write Adobe RGB, printers want CMYK. The ICC profile in a picture states
its color space, and every viewer reads it. Without the conversion the colors would be paler, or wrong.
"""

import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

# The profiles of printing presses are the largest, up to 3 MB; those of cameras and phones take 0.5 to 4 kB.
_MAX_PROFILE_BYTES = 4 << 20
# A profile that changes no color by more than this, of 255, is one of the many descriptions of sRGB itself.
_SAME = 3

_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}


def to_srgb(profile: bytes | None, mode: str) -> Callable[[Image.Image], Image.Image] | None:
    """Return a function that converts images from the color space of an ICC profile to sRGB.

    Args:
        profile: The ICC profile, or None. One that is damaged, too large or of another kind of color than `mode` is
            ignored, as viewers do.
        mode: The mode of the images: "L", "RGB" or "CMYK".

    Returns:
        A function from an image in `mode` to one in mode "RGB", which takes 10 ns a pixel; None if there is nothing to
        convert.
    """
    if not profile or len(profile) > _MAX_PROFILE_BYTES:
        return None
    transform = _transform(profile, mode)
    return None if transform is None else transform.apply


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> Any:
    """Return the transform from a profile's space to sRGB; None if there is none, or if it would change nothing."""
    from PIL import ImageCms  # 4 ms, which pictures without a profile need not wait for

    try:
        cms: Any = ImageCms  # its types are partly unknown
        source = cms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _SPACES.get(mode):
            return None
        transform = cms.buildTransform(source, cms.createProfile("sRGB"), mode, "RGB")
        return transform if mode == "CMYK" or _changes_colors(transform, mode) else None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, ImportError):
        return None


def _changes_colors(transform: Any, mode: str) -> bool:
    levels = np.linspace(0, 255, 9, dtype=np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels if mode == "RGB" else levels[:1]), axis=-1).reshape(1, -1, 3)
    image = Image.fromarray(colors if mode == "RGB" else colors[:, :, 0])
    before = np.asarray(image.convert("RGB"), np.int16)
    return bool(np.abs(np.asarray(transform.apply(image), np.int16) - before).max() > _SAME)
