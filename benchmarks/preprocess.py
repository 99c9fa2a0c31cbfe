"""Measure the way from a JPEG to the pixels of a tower, on one thread.

    python -m benchmarks.preprocess

Compares, for several sizes: clipita's default and exact ways; the preprocessing of transformers, fastembed and
open_clip; and two other decoders (simplejpeg, pyvips) before the same resize. Beside the times stands how far the
pixels and the embeddings are from the exact ones. Peers that are not installed are left out.
"""

import io
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.tools.measure import Figures, interleaved, milliseconds, publish
from benchmarks.tools.photographs import jpegs
from clipita.images.pixels import Preprocessing, load_pixels

SIZES = {(500, 375): 60, (1024, 768): 40, (4000, 3000): 9}
COUNT = 4
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CLIP = Preprocessing(
    224, "shortest", "bicubic", (122.77, 116.75, 104.09), (68.5, 66.63, 70.32), transparency="drop", crop="floor"
)

Pixels = np.ndarray[Any, np.dtype[Any]]


def methods() -> dict[str, Callable[[bytes], Pixels]]:
    """Return the compared functions by name.

    Each turns a JPEG into (224, 224, 3) uint8, or into (3, 224, 224) float32 where a peer normalizes too.
    """
    found: dict[str, Callable[[bytes], Pixels]] = {
        "clipita": lambda data: load_pixels(data, CLIP, name="a"),
        "clipita, exact": lambda data: load_pixels(data, CLIP, name="a", exact=True),
        "Pillow, as in open_clip": _pillow,
    }
    if find_spec("transformers"):
        import transformers

        processor: Any = transformers.CLIPImageProcessorPil()
        found["transformers"] = lambda data: processor(_open(data), return_tensors="np")["pixel_values"][0]
    if find_spec("fastembed"):
        operators: Any = import_module("fastembed.image.transform.operators")
        compose: Any = operators.Compose.from_config(
            {
                "do_resize": True,
                "size": {"shortest_edge": 224},
                "resample": 3,
                "do_center_crop": True,
                "crop_size": 224,
                "do_rescale": True,
                "rescale_factor": 1 / 255,
                "do_normalize": True,
                "image_mean": list(MEAN),
                "image_std": list(STD),
                "do_convert_rgb": True,
            }
        )
        found["fastembed"] = lambda data: np.asarray(compose([_open(data)])[0])
    if find_spec("simplejpeg"):
        simplejpeg: Any = import_module("simplejpeg")

        def with_simplejpeg(data: bytes) -> Pixels:
            return load_pixels(simplejpeg.decode_jpeg(data, min_height=672, min_width=672), CLIP, name="a")

        found["simplejpeg, then clipita"] = with_simplejpeg
    if find_spec("pyvips"):
        pyvips: Any = import_module("pyvips")

        def with_vips(data: bytes) -> Pixels:
            return pyvips.Image.thumbnail_buffer(data, 224, height=224, crop="centre").numpy()

        found["pyvips thumbnail"] = with_vips
    return found


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def _pillow(data: bytes) -> Pixels:
    """Decode, resize the whole image, crop, convert to float32 and normalize."""
    image = _open(data).convert("RGB")
    scale = 224 / min(image.size)
    width, height = (int(side * scale) for side in image.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    image = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))
    values = np.asarray(image).transpose(2, 0, 1).astype(np.float32) / 255
    mean, std = (np.array(numbers, np.float32).reshape(3, 1, 1) for numbers in (MEAN, STD))
    return (values - mean) / std


def measure() -> Figures:
    """Time all methods on photographs of all sizes, and compare their pixels and embeddings."""
    import clipita

    model = clipita.load()
    ways = methods()
    rows: list[Figures] = []
    for (width, height), rounds in SIZES.items():
        files = jpegs(width, height, COUNT)
        times = interleaved(
            {name: lambda way=way, files=files: [way(data) for data in files] for name, way in ways.items()}, rounds
        )
        exact = [ways["clipita, exact"](data) for data in files]
        expected = model.encode_image(exact)
        for name, way in ways.items():
            row: Figures = {"size": [width, height], "method": name, "seconds": times[name]}
            pixels = [_levels(way(data)) for data in files]
            if all(found.shape == (224, 224, 3) for found in pixels):
                differences = [np.abs(a.astype(int) - b).max() for a, b in zip(pixels, exact, strict=True)]
                cosines = (model.encode_image(pixels) * expected).sum(-1)
                row |= {"largest_difference": int(max(differences)), "smallest_cosine": float(cosines.min())}
            rows.append(row)
    return {"rows": rows}


def _levels(pixels: Pixels) -> Pixels:
    if pixels.dtype == np.uint8:
        return pixels
    values = pixels.transpose(1, 2, 0) * np.array(STD, np.float32) + np.array(MEAN, np.float32)
    return np.rint(values * 255).clip(0, 255).astype(np.uint8)


def markdown(report: Figures) -> str:
    """Return the table of times and differences as Markdown."""
    lines = [
        "# Preprocessing",
        "",
        "One JPEG to the 224 x 224 pixels of a tower, one thread; milliseconds, median and quartiles. Differences are "
        "from the exact pixels, in levels of 255; cosines are of the embeddings that clipita-mini makes of them.",
        "",
        "| size | method | ms | largest difference | smallest cosine |",
        "|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        size = " x ".join(map(str, row["size"]))
        cosine = f"{row['smallest_cosine']:.5f}" if "smallest_cosine" in row else ""
        time = milliseconds(row["seconds"], COUNT)
        lines.append(f"| {size} | {row['method']} | {time} | {row.get('largest_difference', '')} | {cosine} |")
    return "\n".join(lines)


if __name__ == "__main__":
    publish("preprocess", measure, markdown)
