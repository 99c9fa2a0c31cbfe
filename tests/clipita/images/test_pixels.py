"""Any image input -> pixels. Expected values are computed here, by hand or with plain Pillow operations."""

import functools
import gc
import io
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFile

from clipita.errors import CheckpointError, ImageError, ImageTooLargeError
from clipita.images import decode as _decode
from clipita.images import geometry as _geometry
from clipita.images.pixels import DEFAULT_MAX_PIXELS, Preprocessing, describe, load_picture, load_pixels

CONFIG = {
    "image_size": 32,
    "resize": "shortest",
    "interpolation": "bicubic",
    "mean": [127.0, 127.0, 127.0],
    "std": [128.0, 128.0, 128.0],
}
LOSSLESS = [
    ("PNG", {}),
    ("BMP", {}),
    ("PPM", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ("WEBP", {"lossless": True}),
    ("JPEG2000", {}),
]
LOSSY = [
    ("JPEG", {"quality": 95}),
    ("JPEG", {"quality": 95, "progressive": True}),
    ("TIFF", {"compression": "jpeg"}),
    ("WEBP", {}),
    ("AVIF", {}),
    ("GIF", {}),
]


def preprocessing(size: int = 32, interpolation: str = "bicubic") -> Preprocessing:
    return Preprocessing.from_dict({**CONFIG, "image_size": size, "interpolation": interpolation})


def load(image: object, size: int = 32, name: str = "images[3]", **options: int) -> np.ndarray:
    return load_pixels(image, preprocessing(size), name=name, exact=True, **options)  # type: ignore[arg-type]


def noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(width * 1000 + height).integers(0, 256, shape, dtype=np.uint8)


def smooth(width: int, height: int) -> np.ndarray:
    """A gradient in each channel: lossy formats stay close to it."""
    x, y = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 200, height))
    return np.stack([x, y, 255 - (x + y) / 2], axis=-1).astype(np.uint8)


def encode(image: Image.Image | np.ndarray, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, format, **options)
    return file.getvalue()


def reference(image: Image.Image | np.ndarray, size: int, resample: int = Image.Resampling.BICUBIC) -> np.ndarray:
    """torchvision's Resize(size) and CenterCrop(size), written out: the whole image is resized, then cropped."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    width, height = image.size
    if width <= height:
        resized = image.resize((size, int(size * height / width)), resample)
    else:
        resized = image.resize((int(size * width / height), size), resample)
    top, left = round((resized.height - size) / 2.0), round((resized.width - size) / 2.0)
    return np.asarray(resized.crop((left, top, left + size, top + size)).convert("RGB"))


# --- kinds of input


@settings(max_examples=30, deadline=None)
@given(
    array=hnp.arrays(
        np.uint8,
        st.one_of(
            st.tuples(st.integers(1, 40), st.integers(1, 40)),
            st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([3, 4])),
        ),
    )
)
def test_path_bytes_file_pil_and_array_are_the_same(array: np.ndarray) -> None:
    data = encode(array)
    expected = load(array)
    assert expected.shape == (32, 32, 3)
    assert expected.dtype == np.uint8
    assert expected.flags.writeable
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "rossi.png"
        path.write_bytes(data)
        with open(path, "rb") as file:
            inputs = [path, str(path), data, bytearray(data), memoryview(data), file, io.BytesIO(data)]
            inputs += [Image.open(io.BytesIO(data)), Image.fromarray(array), np.asfortranarray(array)]
            for image in inputs:
                np.testing.assert_array_equal(load(image), expected, err_msg=repr(image))


def test_arrays_may_be_views() -> None:
    array = noise(40, 30)
    np.testing.assert_array_equal(load(array[::-1, ::2]), load(array[::-1, ::2].copy()))
    np.testing.assert_array_equal(load(array[:, :, :1]), load(array[:, :, 0]))
    read_only = array.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(load(read_only), load(array))


def test_a_file_is_read_from_its_position_and_stays_open() -> None:
    file = io.BytesIO(b"intestazione" + encode(noise(40, 30)))
    file.seek(len(b"intestazione"))
    np.testing.assert_array_equal(load(file), load(noise(40, 30)))
    assert not file.closed


def test_pipes_are_read(tmp_path: pathlib.Path) -> None:
    data = encode(noise(40, 30))
    for as_path in (True, False):
        reader, writer = os.pipe()
        with open(writer, "wb") as end:
            end.write(data)
        with open(reader, "rb") as file:
            np.testing.assert_array_equal(load(f"/dev/fd/{reader}" if as_path else file), load(noise(40, 30)))


def in_mode(mode: str) -> Image.Image:
    image = Image.fromarray(smooth(40, 30)).convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode))
    if mode == "P":
        image.info["transparency"] = 3
    return image.convert(mode)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]
)
def test_a_pil_image_is_not_modified(mode: str) -> None:
    image = in_mode(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.info["exif"] = exif.tobytes()

    def state() -> tuple[object, ...]:
        palette = image.getpalette("RGBA") if mode == "P" else None
        return image.mode, image.size, dict(image.info), image.tobytes(), palette

    before = state()
    first = load(image)
    assert state() == before
    np.testing.assert_array_equal(load(image), first)


def test_a_pil_animation_gives_its_current_frame() -> None:
    frames = [Image.fromarray(noise(32, 32 + i)[:32]) for i in range(3)]
    with Image.open(io.BytesIO(encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]))) as image:
        image.seek(2)
        np.testing.assert_array_equal(load(image), np.asarray(frames[2]))
        assert image.tell() == 2


# --- formats


@pytest.mark.parametrize(("format", "options"), LOSSLESS)
def test_lossless_formats_keep_every_value(format: str, options: dict[str, object]) -> None:
    np.testing.assert_array_equal(load(encode(noise(32, 32), format, **options)), noise(32, 32))


@pytest.mark.parametrize(("format", "options"), LOSSY)
def test_lossy_formats_are_decoded_as_pillow_does(format: str, options: dict[str, object]) -> None:
    data = encode(smooth(32, 32), format, **options)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(load(data), np.asarray(image.convert("RGB")))
    assert np.abs(load(data).astype(int) - smooth(32, 32)).mean() < 12


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_or_page_counts(format: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    assert (load(data) == (255, 0, 0)).all()


def test_mpo_gives_its_first_picture() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime")]
    data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert np.abs(load(data).astype(int) - (255, 0, 0)).max() < 3


# Displayed pixels from stored ones, for each value of the EXIF tag (EXIF 2.3, table of "Orientation").
ORIENTATIONS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(
    ("format", "options"),
    [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_exif_orientation(orientation: int, format: str, options: dict[str, object]) -> None:
    stored = noise(45, 30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = reference(np.ascontiguousarray(ORIENTATIONS[orientation](stored)), 32)
    data = encode(stored, format, exif=exif, **options)
    np.testing.assert_array_equal(load(data), expected)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(load(image), expected)


def test_exif_orientation_of_jpeg_and_of_other_modes() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(smooth(45, 30), "JPEG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(load(data), reference(np.rot90(np.asarray(image), -1).copy(), 32))
    for channels in (1, 4):
        array = noise(45, 30, channels)
        expected = load(np.ascontiguousarray(np.rot90(array, -1)))
        np.testing.assert_array_equal(load(encode(array, "PNG", exif=exif)), expected)


# --- colours. 32 x 32 at image_size 32 is neither resized nor cropped: the values are those of the colour conversion.


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    alpha = alpha[..., None] / 255
    return np.rint(colour * alpha + 255 * (1 - alpha))


def test_transparency_lies_on_white() -> None:
    rgba = noise(32, 32, 4)
    expected = over_white(rgba[..., :3], rgba[..., 3])
    np.testing.assert_allclose(load(rgba), expected, atol=1)
    np.testing.assert_allclose(load(encode(rgba)), expected, atol=1)
    image = Image.fromarray(rgba)
    background = Image.new("RGBA", image.size, "white")
    background.alpha_composite(image)
    np.testing.assert_allclose(load(image), np.asarray(background.convert("RGB")), rtol=0, atol=1)
    opaque = rgba.copy()
    opaque[..., 3] = 255
    np.testing.assert_array_equal(load(opaque), opaque[..., :3])
    opaque[..., 3] = 0
    assert (load(opaque) == 255).all()


def test_grey_with_transparency_lies_on_white() -> None:
    grey, alpha = noise(32, 32, 1), noise(33, 32, 1)[:, :32]
    image = Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))
    expected = over_white(np.stack([grey] * 3, axis=-1), alpha)
    np.testing.assert_allclose(load(image), expected, atol=1)
    np.testing.assert_allclose(load(encode(image)), expected, atol=1)
    # Premultiplied images have lost precision where they are nearly transparent; on white it does not show.
    np.testing.assert_allclose(load(image.convert("La")), expected, atol=2)
    rgba = Image.fromarray(noise(32, 32, 4))
    np.testing.assert_allclose(load(rgba.convert("RGBa")), load(rgba).astype(int), atol=2)


def palette_image(transparency: int | bytes | None = None, palette_mode: str = "RGB") -> Image.Image:
    image = Image.new("P", (32, 32))
    image.putdata([(x // 16) + 2 * (y // 16) for y in range(32) for x in range(32)])
    colours = [(255, 0, 0, 255), (0, 255, 0, 128), (0, 0, 255, 0), (10, 20, 30, 255)]
    image.putpalette([value for colour in colours for value in colour[: len(palette_mode)]], palette_mode)
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [  # the four quarters, row by row
        (palette_image(), [(255, 0, 0), (0, 255, 0), (0, 0, 255), (10, 20, 30)]),
        (palette_image(2), [(255, 0, 0), (0, 255, 0), (255, 255, 255), (10, 20, 30)]),
        (palette_image(bytes([255, 128, 0])), [(255, 0, 0), (127, 255, 127), (255, 255, 255), (10, 20, 30)]),
        (palette_image(None, "RGBA"), [(255, 0, 0), (127, 255, 127), (255, 255, 255), (10, 20, 30)]),
        (palette_image().convert("PA"), [(255, 0, 0), (0, 255, 0), (0, 0, 255), (10, 20, 30)]),
    ],
)
def test_palettes(image: Image.Image, expected: list[tuple[int, int, int]]) -> None:
    quarters = [(8, 8), (8, 24), (24, 8), (24, 24)]
    assert [tuple(load(image)[place].tolist()) for place in quarters] == expected
    if image.mode == "P" and image.palette is not None and image.palette.mode == "RGB":
        assert [tuple(load(encode(image, "PNG"))[place].tolist()) for place in quarters] == expected
        if not isinstance(image.info.get("transparency"), bytes):  # GIF has one transparent colour
            assert [tuple(load(encode(image, "GIF"))[place].tolist()) for place in quarters] == expected


def test_a_transparent_colour_lies_on_white() -> None:
    rgb = np.full((32, 32, 3), (200, 10, 10), np.uint8)
    rgb[:16] = (1, 2, 3)
    pixels = load(encode(rgb, "PNG", transparency=(1, 2, 3)))
    assert (pixels[:16] == 255).all()
    assert (pixels[16:] == (200, 10, 10)).all()
    pixels = load(encode(rgb[..., 0], "PNG", transparency=1))
    assert (pixels[:16] == 255).all()
    assert (pixels[16:] == 200).all()


def test_cmyk() -> None:
    cmyk = noise(32, 32, 4)
    image = Image.frombytes("CMYK", (32, 32), cmyk.tobytes())
    expected = (255 - cmyk[..., :3].astype(float)) * (255 - cmyk[..., 3:].astype(float)) / 255
    np.testing.assert_allclose(load(image), expected, atol=1)
    np.testing.assert_allclose(load(encode(image, "TIFF")), expected, atol=1)


def test_cmyk_jpeg_is_stored_inverted() -> None:
    red = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    data = encode(red, "JPEG", quality=95)
    assert b"Adobe" in data
    assert np.abs(load(data).astype(int) - (255, 0, 0)).max() <= 3


def test_one_bit() -> None:
    bits = noise(32, 32, 1) > 127
    for image in (Image.fromarray(bits), encode(Image.fromarray(bits)), encode(Image.fromarray(bits), "TIFF")):
        np.testing.assert_array_equal(load(image), np.repeat(bits[..., None] * 255, 3, axis=2))


@pytest.mark.parametrize("mode", ["RGBX", "YCbCr", "HSV", "LAB"])
def test_other_colour_spaces(mode: str) -> None:
    np.testing.assert_array_equal(load(in_mode(mode)), reference(in_mode(mode).convert("RGB"), 32))


def deep(step: int = 64) -> np.ndarray:
    return (np.arange(1024, dtype=np.uint16) * step).reshape(32, 32)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Image.fromarray(deep()),
        lambda: encode(Image.fromarray(deep()), "PNG"),
        lambda: encode(Image.fromarray(deep()), "TIFF"),
        lambda: encode(Image.fromarray(deep()), "JPEG2000"),
        lambda: Image.frombytes("I;16B", (32, 32), deep().astype(">u2").tobytes()),
        lambda: Image.fromarray(deep().astype(np.int32)),
        lambda: b"P5 32 32 65535 " + deep().astype(">u2").tobytes(),
    ],
    ids=["I;16", "PNG", "TIFF", "JPEG2000", "I;16B", "I", "PGM"],
)
def test_16_bit_grey_is_scaled_not_clipped(make: Callable[[], Image.Image | bytes]) -> None:
    expected = np.rint(deep() / 257)
    assert expected.max() == 255
    np.testing.assert_array_equal(load(make()), np.repeat(expected[..., None], 3, axis=2))


def test_every_16_bit_value_is_rounded() -> None:
    every = Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256))
    np.testing.assert_array_equal(load(every, 256)[..., 1], np.rint(np.asarray(every) / 257))


def test_a_transparent_16_bit_grey_lies_on_white() -> None:
    pixels = load(encode(Image.fromarray(deep()), "PNG", transparency=640))
    assert pixels.reshape(-1, 3)[9:12, 0].tolist() == [2, 255, 3]


# --- geometry

SHAPES = [(48, 64), (64, 48), (301, 1201), (1201, 301), (33, 35), (35, 33), (1, 40), (40, 1), (2, 97), (7, 5), (1, 1)]
SHAPES += [(3, 500), (500, 3), (224, 224), (225, 224), (224, 225), (640, 427), (427, 640), (31, 1000)]


@pytest.mark.parametrize("size", [224, 33])
@pytest.mark.parametrize(("width", "height"), SHAPES)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_geometry_is_torchvisions_to_the_bit(width: int, height: int, size: int, interpolation: str) -> None:
    for channels in (3, 1):
        array = noise(width, height, channels)
        pixels = load_pixels(array, preprocessing(size, interpolation), name="images[0]", exact=True)
        resample = getattr(Image.Resampling, interpolation.upper())
        np.testing.assert_array_equal(pixels, reference(array, size, resample))


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 150), height=st.integers(1, 150), size=st.integers(1, 64))
def test_geometry_of_any_size(width: int, height: int, size: int) -> None:
    np.testing.assert_array_equal(load(noise(width, height), size), reference(noise(width, height), size))


def test_crop_offset_rounds_half_to_even() -> None:
    # 5 columns of which 2 are kept: (5 - 2) / 2 = 1.5 -> 2. 3 columns: 0.5 -> 0.
    columns = np.tile(np.arange(5, dtype=np.uint8) * 50, (2, 1))
    assert load(columns, 2)[0, :, 0].tolist() == [100, 150]
    assert load(columns[:, :3], 2)[0, :, 0].tolist() == [0, 50]


@pytest.mark.parametrize(("width", "height"), [(2, 97), (97, 2), (3, 500), (500, 3), (31, 1000), (1000, 31), (1, 300)])
def test_long_strips_differ_by_one_level_at_most(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_geometry, "_MAX_ENLARGED_PIXELS", 0)
    difference = np.abs(load(noise(width, height), 224).astype(int) - reference(noise(width, height), 224))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.005


def memory_of(script: str) -> int:
    """Peak resident memory, in MiB, that a script adds to the imports of this module."""
    program = (
        "import io, resource, sys\nimport numpy as np\nfrom PIL import Image\n"
        "from clipita.images.pixels import *\nfrom clipita.errors import *\n"
        "p = Preprocessing(224, 'shortest', 'bicubic', (127, 127, 127), (128, 128, 128))\n"
        "load_pixels(np.zeros((300, 300, 3), np.uint8), p, name='a')\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nbefore = peak()\n"
        f"{script}\nprint(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) // 1024


def test_a_strip_of_a_pixel_costs_no_memory() -> None:
    script = "for s in ((1, 20000), (20000, 1)): load_pixels(np.zeros(s, np.uint8), p, name='a')"
    assert memory_of(script) < 16
    strip = noise(1, 20_000)
    expected = reference(strip[10_000 - 8 : 10_000 + 8], 224)  # the same symmetry, and the crop is one pixel high
    np.testing.assert_array_equal(load(strip, 224), expected)


# --- the whole picture


def test_a_whole_picture_is_upright_opaque_and_shrunk_at_need() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = noise(90, 40)
    whole, size = load_picture(encode(stored, exif=exif), max_side=90, name="a")
    assert size == whole.size == (40, 90)
    np.testing.assert_array_equal(np.asarray(whole), np.rot90(stored, -1))
    small, size = load_picture(encode(stored, exif=exif), max_side=45, name="a")
    assert (small.size, size) == ((20, 45), (40, 90))
    np.testing.assert_array_equal(small, Image.fromarray(np.rot90(stored, -1).copy()).resize((20, 45), 3))
    clear, _ = load_picture(Image.new("RGBA", (5, 5), (0, 0, 0, 0)), max_side=5, name="a")
    assert (clear.mode, clear.getpixel((2, 2))) == ("RGB", (255, 255, 255))


def test_a_large_jpeg_has_its_size_and_is_close_to_the_whole() -> None:
    stored = smooth(1203, 907)
    small, size = load_picture(encode(stored, "JPEG", quality=95), max_side=100, name="a")
    assert (small.size, size) == ((100, 75), (1203, 907))
    expected = np.asarray(Image.fromarray(stored).resize((100, 75), 3), np.int16)
    assert np.abs(np.asarray(small, np.int16) - expected).max() <= 4


def test_a_whole_picture_that_is_none_names_itself() -> None:
    with pytest.raises(ImageTooLargeError, match="the answer has 90 x 40 = 3,600 pixels"):
        load_picture(encode(noise(90, 40)), max_side=9, name="the answer", max_pixels=3_599)
    data = encode(smooth(1203, 907), "JPEG")
    with pytest.raises(ImageError, match="the answer is truncated"):
        load_picture(data[: len(data) // 2], max_side=64, name="the answer")


# --- the pixel limit


@functools.cache
def bomb(side: int = 30_000) -> bytes:
    """A PNG of side x side 1-bit pixels, all black, without holding them: 110 kB at 30,000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = bytes(1 + (side + 7) // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_decompression_bomb_costs_no_memory(tmp_path: pathlib.Path) -> None:
    data = bomb()
    assert len(data) < 200_000
    (tmp_path / "bomba.png").write_bytes(data)
    script = (
        f"path = {str(tmp_path / 'bomba.png')!r}\n"
        "for image in (path, open(path, 'rb').read()):\n"
        "    try: load_pixels(image, p, name='bomba')\n"
        "    except ImageTooLargeError as error: print(error, file=sys.stderr)\n"
        "    else: sys.exit(1)\n"
    )
    assert memory_of(script) < 8
    with pytest.raises(
        ImageTooLargeError, match=r"30000 x 30000 = 900,000,000 pixels, more than the limit of 178,956,970"
    ):
        load(data)


def webp_header(width: int, height: int) -> bytes:
    """A real lossless WebP whose header claims another size."""
    data = bytearray(encode(noise(16, 16), "WEBP", lossless=True))
    start = data.index(b"VP8L") + 9  # chunk name, length, signature byte; then 14 bits for each side, less one
    (bits,) = struct.unpack_from("<I", data, start)
    struct.pack_into("<I", data, start, bits & ~0x0FFFFFFF | (width - 1) | (height - 1) << 14)
    return bytes(data)


def test_a_webp_bomb_costs_no_memory(tmp_path: pathlib.Path) -> None:
    for side in (13_000, 16_000):  # below and above Pillow's own limit
        (tmp_path / "bomba.webp").write_bytes(webp_header(side, side))
        script = (
            "try: load_pixels(%r, p, name='bomba', max_pixels=10**6)\n"
            "except ImageTooLargeError: pass\n"
            "else: sys.exit(1)"
        )
        assert memory_of(script % str(tmp_path / "bomba.webp")) < 8


@pytest.mark.parametrize(
    "make", [lambda a: a, Image.fromarray, encode, lambda a: encode(a, "JPEG"), lambda a: encode(a, "WEBP")]
)
def test_the_limit_is_exact_and_for_every_input(make: Callable[[np.ndarray], object]) -> None:
    image = make(noise(50, 40))
    assert load(image, max_pixels=2000).shape == (32, 32, 3)
    with pytest.raises(
        ImageTooLargeError, match=r"images\[3\] has 50 x 40 = 2,000 pixels, more than the limit of 1,999"
    ):
        load(image, max_pixels=1999)


def test_pillows_own_limit_neither_matters_nor_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert 2 * Image.MAX_IMAGE_PIXELS == DEFAULT_MAX_PIXELS
    for host in (3000, 1500, None):  # of 4,800 pixels it warns, refuses them, does not look
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", host)
        for format in ("PNG", "JPEG", "GIF"):
            assert load(encode(noise(80, 60), format)).shape == (32, 32, 3)
        assert host == Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    for format in ("TIFF", "WEBP"):  # their decoders ask Pillow themselves
        with pytest.raises(ImageTooLargeError, match="too large for Pillow"):
            load(encode(noise(80, 60), format))


# --- what cannot be used


class Tensor:
    """Stands for the arrays of PyTorch, JAX and others."""

    def __array__(self) -> np.ndarray:
        return noise(8, 8)


class Unreadable(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        raise OSError(5, "Input/output error")


def with_closed_image() -> Image.Image:
    image = Image.open(io.BytesIO(encode(noise(8, 8))))
    image.close()
    return image


def jpeg() -> bytes:
    return encode(noise(64, 48), "JPEG")


# What is passed, and what the message must hold. `python test_pixels.py` prints the messages as a table.
BAD: dict[str, tuple[Callable[[], object], str]] = {
    "None": (lambda: None, "is of type NoneType, expected a path, bytes, a binary file, a PIL image or a NumPy uint8"),
    "a number": (lambda: 3, "is of type int, expected a path"),
    "a list of numbers": (lambda: [[0, 1], [2, 3]], "is of type list, expected a path"),
    "another library's array": (Tensor, r"Tensor, expected a path.*numpy\.asarray\(image\)"),
    "a URL": (lambda: "https://esempio.it/gatto.jpg", "is a URL, and clipita opens no connection for images"),
    "a data URL": (lambda: "data:image/png;base64,iVBORw0KGgo=", "is a URL"),
    "float32 array 0..1": (lambda: np.zeros((8, 8, 3), np.float32), r"array of float32, expected uint8.*astype"),
    "uint16 array": (lambda: np.zeros((8, 8), np.uint16), "array of uint16, expected uint8"),
    "bool array": (lambda: np.zeros((8, 8), bool), "array of bool, expected uint8"),
    "object array": (lambda: np.array([[None]]), "array of object, expected uint8"),
    "channels first": (lambda: np.zeros((3, 8, 8), np.uint8), r"shape \(3, 8, 8\), expected \(H, W\).*moveaxis"),
    "a batch": (lambda: np.zeros((2, 8, 8, 3), np.uint8), r"shape \(2, 8, 8, 3\).*list\(images\)"),
    "two channels": (lambda: np.zeros((8, 8, 2), np.uint8), r"shape \(8, 8, 2\), expected"),
    "one dimension": (lambda: np.zeros(8, np.uint8), r"shape \(8,\), expected"),
    "a scalar array": (lambda: np.uint8(3) + np.zeros((), np.uint8), "is of type|shape"),
    "no rows": (lambda: np.zeros((0, 8, 3), np.uint8), r"shape \(0, 8, 3\), which holds no pixel"),
    "no columns": (lambda: np.zeros((8, 0), np.uint8), r"shape \(8, 0\), which holds no pixel"),
    "PIL image without pixels": (lambda: Image.new("RGB", (0, 5)), "0 x 5 pixels, which is none"),
    "PIL image that is closed": (with_closed_image, "is damaged or incomplete|closed"),
    "PIL image in floats": (lambda: Image.new("F", (8, 8)), "floating-point values"),
    "PIL image of 32 bits": (lambda: Image.new("I", (8, 8), 70000), "values from 70000 to 70000, expected 16 bits"),
    "TIFF in floats": (lambda: encode(Image.new("F", (8, 8)), "TIFF"), "floating-point values"),
    "no bytes": (lambda: b"", r"is empty \(0 bytes\)"),
    "an empty file object": (lambda: io.BytesIO(), r"is empty \(0 bytes\)"),
    "a file object at its end": (lambda: (f := io.BytesIO(jpeg()), f.read())[0], r"is empty \(0 bytes\)"),
    "text": (lambda: b"ciao, sono una foto", "no image in a known format: it starts with b'ciao, sono una f'"),
    "a web page": (lambda: b"<!DOCTYPE html><html>404</html>", "it starts with b'<!DOCTYPE html><'"),
    "a PDF": (lambda: b"%PDF-1.7 ...", "Convert it to one of JPEG, PNG"),
    "an EPS": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "no image in a known format"),
    "HEIC of no picture": (lambda: b"\0\0\0\x18ftypheic" + bytes(40), "is damaged or incomplete"),
    "zeros": (lambda: bytes(5000), "no image in a known format"),
    "one byte": (lambda: b"\xff", "no image in a known format"),
    "a text-mode file": (lambda: io.StringIO("ciao"), r"Open it in binary mode: open\(path, 'rb'\)"),
    "a text-mode file of bytes": (lambda: io.TextIOWrapper(io.BytesIO(jpeg()), "utf-8"), "Open it in binary mode"),
    "a closed file": (lambda: (f := io.BytesIO(jpeg()), f.close())[0], "cannot be read: I/O operation on closed file"),
    "a file that fails": (lambda: Unreadable(), "cannot be read: Input/output error"),
    "a truncated JPEG": (lambda: jpeg()[:1500], r"is truncated: its data end too early \(image file is truncated"),
    "a JPEG cut in its header": (lambda: jpeg()[:100], "is truncated: its data end too early"),
    "a JPEG's first 3 bytes": (lambda: jpeg()[:3], "is damaged or incomplete"),
    "a progressive JPEG cut": (lambda: encode(noise(64, 48), "JPEG", progressive=True)[:1500], "is truncated"),
    "a truncated PNG": (lambda: encode(noise(64, 48))[:4000], "is truncated"),
    "a PNG with a wrong CRC": (lambda: encode(noise(64, 48)).replace(b"IHDR\0\0\0@", b"IHDR\0\0\0A"), "is damaged"),
    "a truncated GIF": (lambda: encode(noise(64, 48), "GIF")[:2000], "is truncated"),
    "a truncated WebP": (lambda: encode(noise(64, 48), "WEBP")[:1000], "is damaged or incomplete"),
    "a truncated TIFF": (lambda: encode(noise(64, 48), "TIFF")[:4000], "is truncated"),
    "a TIFF (LZW) without its end": (
        lambda: encode(noise(64, 48), "TIFF", compression="tiff_lzw")[:4000],
        "is damaged or incomplete",
    ),
    "a truncated BMP": (lambda: encode(noise(64, 48), "BMP")[:4000], "is truncated"),
    "a truncated AVIF": (lambda: encode(noise(64, 48), "AVIF")[:-100], "is truncated"),
    "a truncated JPEG 2000": (lambda: encode(noise(64, 48), "JPEG2000")[:4000], "is truncated"),
    "a truncated PPM": (lambda: encode(noise(64, 48), "PPM")[:4000], "is truncated"),
    "30000 x 30000 pixels in a PNG": (bomb, "900,000,000 pixels, more than the limit of 178,956,970"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_inputs_name_themselves_and_say_what_to_do(case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(ImageError, match=message) as caught:
        load(make(), name="images[3]")
    text = str(caught.value)
    assert text.startswith("images[3] ")
    assert text.endswith(".")
    assert text.count(". ") >= 1  # what is wrong; what to do


def bad_paths(folder: pathlib.Path) -> dict[str, tuple[str, str]]:
    (folder / "vuoto.jpg").write_bytes(b"")
    (folder / "nota.jpg").write_bytes(b"ciao, sono una foto")
    (folder / "rossi.tif").write_bytes(encode(noise(64, 48), "TIFF")[:4000])
    (folder / "cartella").mkdir()
    return {
        "a missing file": ("manca.jpg", "does not exist. Check the path"),
        "a folder": ("cartella", "is a folder, expected an image file"),
        "an empty file": ("vuoto.jpg", r"is empty \(0 bytes\)"),
        "text in a .jpg": ("nota.jpg", "no image in a known format"),
        "a truncated file": ("rossi.tif", "is truncated"),
        "a path through a file": ("nota.jpg/rossi.jpg", "cannot be opened: Not a directory"),
        "a path that is too long": ("a" * 5000, "cannot be opened: File name too long"),
        "a path with a null": ("a\0b", "cannot be opened: embedded null"),
        "an empty path": ("", "does not exist"),
    }


def test_bad_paths_name_themselves(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = bad_paths(tmp_path)
    monkeypatch.chdir(tmp_path)
    for path, message in cases.values():
        with pytest.raises(ImageError, match=message) as caught:
            load(path, name=describe(path))
        assert str(caught.value).startswith(describe(path))


def test_no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_decode, "open", refuse, raising=False)
    with pytest.raises(ImageError, match=r"^'rossi\.jpg' may not be read by this user"):
        load("rossi.jpg", name="'rossi.jpg'")


def test_decoders_that_run_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust(self: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", exhaust)
    with pytest.raises(ImageError, match="more memory to decode than there is"):
        load(jpeg())


def test_files_are_closed(tmp_path: pathlib.Path) -> None:
    for format in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "MPO"):
        (tmp_path / f"buona.{format}").write_bytes(encode(smooth(40, 30), format))
        (tmp_path / f"tagliata.{format}").write_bytes(encode(noise(40, 30), format)[:700])
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    (tmp_path / "pagine.tif").write_bytes(encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    for path in sorted(tmp_path.iterdir()):
        if path.name.startswith("tagliata"):
            with pytest.raises(ImageError):
                load(path)
        else:
            load(path)
    assert sorted(os.listdir("/proc/self/fd")) == before  # without waiting for the garbage collector


# --- warnings


def with_damaged_exif() -> bytes:
    return encode(smooth(40, 30), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x03\0\x12\x01\x03\0\x01\0")


def test_warnings_of_pillow_do_not_leak() -> None:
    with pytest.warns(UserWarning, match="EXIF"), Image.open(io.BytesIO(with_damaged_exif())) as image:
        expected = reference(image, 32)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(load(with_damaged_exif()), expected)
        with Image.open(io.BytesIO(encode(smooth(40, 30)))) as image:
            image.info["exif"] = b"Exif\0\0garbage"
            load(image)
    assert seen == []


def test_warning_filters_survive_threads() -> None:
    before = list(warnings.filters)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                load(with_damaged_exif())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert warnings.filters == before


# --- hostile bytes

SEEDS = [encode(smooth(24, 18), format, **options) for format, options in [*LOSSLESS, *LOSSY]]
SEEDS += [
    encode(palette_image(2), "PNG"),
    encode(palette_image(bytes([255, 128, 0])), "PNG"),
    encode(Image.fromarray(deep()), "PNG", transparency=640),
    encode(Image.fromarray(deep()), "TIFF"),
    encode(Image.fromarray(noise(24, 18, 4)), "WEBP", lossless=True),
    encode(Image.new("CMYK", (24, 18), (9, 8, 7, 6)), "TIFF", compression="packbits"),
    *(
        encode(
            Image.new("RGB", (24, 18), "red"), format, save_all=True, append_images=[Image.new("RGB", (24, 18), "lime")]
        )
        for format in ("GIF", "PNG", "TIFF", "WEBP", "MPO")
    ),
    with_damaged_exif(),
]


def pixels_or_image_error(data: bytes) -> None:
    try:
        pixels = load(data, max_pixels=10**6)
    except ImageError:
        return
    assert pixels.shape == (32, 32, 3)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_hostile_bytes_give_pixels_or_an_image_error(data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(SEEDS))
    hostile = bytearray(seed)
    # Headers are where decoders stumble: half of the changes fall into the first 200 bytes.
    place = st.one_of(st.integers(0, min(200, len(seed) - 1)), st.integers(0, len(seed) - 1))
    value = st.one_of(st.sampled_from([0, 1, 127, 128, 254, 255]), st.integers(0, 255))
    for at, new in data.draw(st.lists(st.tuples(place, value), max_size=8)):
        hostile[at] = new
    start, length = data.draw(place), data.draw(st.sampled_from([0, 0, 0, 1, 2, 40]))
    del hostile[start : start + length]
    cut = data.draw(st.one_of(st.just(len(hostile)), st.integers(0, len(hostile))))
    pixels_or_image_error(bytes(hostile[:cut]))


@settings(max_examples=100, deadline=None)
@given(seed=st.sampled_from(SEEDS), tail=st.binary(max_size=300), keep=st.integers(0, 30))
def test_a_signature_and_anything_after_it(seed: bytes, tail: bytes, keep: int) -> None:
    pixels_or_image_error(seed[:keep] + tail)


# --- the bundle's object, and names


def test_preprocessing_goes_there_and_back() -> None:
    config = Preprocessing.from_dict(CONFIG)
    assert config == Preprocessing(32, "shortest", "bicubic", (127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
    assert config.to_dict() == CONFIG
    assert list(config.to_dict()) == list(CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imagesize": 32}, r"image\.preprocessing has an unknown key 'imagesize'\. Did you mean 'image_size'\?"),
        ({"resize": "squeeze"}, "'resize' must be"),
        ({"short_side": 31}, "short_side must be 32 or more, but it is 31"),
        ({"fill": 256}, "fill must be a gray level"),
        ({"interpolation": "lanczos"}, "'interpolation' must be"),
        ({"image_size": "224"}, "'image_size' must be int"),
        ({"image_size": True}, "'image_size' must be int"),
        ({"image_size": 0}, "image_size must be 1 or more, but it is 0. Export the bundle again"),
        ({"mean": [0.5, 0.5]}, r"mean must be 3 numbers from 0 to 255 \(not 0 to 1\), but it is \[0\.5, 0\.5\]"),
        ({"mean": [300, 0, 0]}, "mean must be 3 numbers"),
        ({"mean": "127"}, "'mean' must be"),
        ({"std": [0, 1, 1]}, r"std must be 3 numbers above 0"),
        ({"std": [float("nan"), 1, 1]}, "'std' must be float"),
    ],
)
def test_preprocessing_is_strict(change: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Preprocessing.from_dict({**CONFIG, **change})


def test_preprocessing_lacks_nothing() -> None:
    for key in CONFIG:
        with pytest.raises(CheckpointError, match=f"lacks '{key}'"):
            Preprocessing.from_dict({name: value for name, value in CONFIG.items() if name != key})


def test_describe() -> None:
    assert describe("foto/rossi.tif") == "'foto/rossi.tif'"
    assert describe(pathlib.PurePosixPath("foto/rossi.tif"), 3) == "images[3] ('foto/rossi.tif')"
    assert describe(b"...", 3) == describe(noise(2, 2), 3) == "images[3]"
    assert describe(io.BytesIO()) == "the image"
    assert describe("a\nb") == r"'a\nb'"
    assert len(describe("iVBORw0KGgo" * 1000)) < 200


def print_bad_inputs() -> None:
    """Every bad input and the message it gets, as a Markdown table."""

    def row(case: str, image: object, name: str) -> None:
        try:
            load(image, name=name)
        except ImageError as error:
            message = str(error) if len(str(error)) < 500 else f"{str(error)[:500]}..."
            print(f"| {case} | `{type(error).__name__}` | {message.replace('|', chr(92) + '|')} |")

    print("| input | error | message |\n|---|---|---|")
    for case, (make, _) in BAD.items():
        image = make()
        row(case, image, describe(image, 3))
    with tempfile.TemporaryDirectory() as folder:
        cases = bad_paths(pathlib.Path(folder))
        os.chdir(folder)
        for case, (path, _) in cases.items():
            row(case, path, describe(path, 3))


if __name__ == "__main__":
    print_bad_inputs()
