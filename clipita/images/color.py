"""Colors of a picture that says what it means by them -> sRGB, which image towers learn from.

Phones write Display P3 by default, cameras may write Adobe RGB, printers want CMYK. A picture says so by the ICC
profile that it carries, and every viewer reads it; read as if they were sRGB, its colors are paler or wrong.
"""

import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

# The profiles of printing presses are the largest, up to 3 MB; those of cameras and phones take 0.5 to 4 kB.
_MAX_PROFILE_BYTES = 4 << 20
# A profile that moves no color by more than this, of 255, is one of the many descriptions of sRGB itself.
_SAME = 3

_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}


def to_srgb(profile: bytes | None, mode: str) -> Callable[[Image.Image], Image.Image] | None:
    """Return what converts images from the space that an ICC profile describes to sRGB.

    Args:
        profile: The ICC profile, or None. One that is damaged, too large or of another kind of color than `mode` is
            ignored, as viewers do.
        mode: Of the images: "L", "RGB" or "CMYK".

    Returns:
        A function from an image in `mode` to one in mode "RGB", some 10 ns a pixel; None where nothing is to be done.
    """
    if not profile or len(profile) > _MAX_PROFILE_BYTES:
        return None
    transform = _transform(profile, mode)
    return None if transform is None else transform.apply


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> Any:
    """The transform from a profile's space to sRGB; None where it cannot be had, or would change nothing."""
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
