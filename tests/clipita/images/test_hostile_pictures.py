"""Small pictures that ask for much are refused from their header; honest ones of the same kind are read."""

import io
import json
import struct
import subprocess
import sys
import threading
import time
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from support import TESTS
from support.hostile_pictures import (
    as_tower,
    chunk,
    encoded,
    jpeg_with,
    noise,
    png,
    segment,
)
from support.refused_pictures import REFUSED

from clipita.errors import ImageError, ImageTooLargeError
from clipita.images import avif as _avif
from clipita.images import bounds as _bounds
from clipita.images import budget as _budget
from clipita.images import jpeg as _jpeg
from clipita.images import jpeg2000 as _jpeg2000


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_small_pictures_that_ask_for_much_are_refused(name: str, exact: bool) -> None:
    make, message = REFUSED[name]
    data = make()
    assert len(data) < 400_000
    start = time.process_time()
    with pytest.raises(ImageError, match=message):
        as_tower(data, exact)
    assert time.process_time() - start < 1


def test_they_cost_no_memory() -> None:
    script = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "import contextlib\n"
        "from support.hostile_pictures import as_tower\n"
        "from support.refused_pictures import REFUSED\n"
        "from clipita.errors import ImageError\n"
        "cases = [make() for make, _ in REFUSED.values()]\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "for data in cases:\n"
        "    with contextlib.suppress(ImageError): as_tower(data)\n"
        "print((peak() - before) >> 10)"
    )
    arguments = [sys.executable, "-c", script, str(TESTS)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 250  # 170 of them are what Pillow has GIF's frame go back to, as it opens the file


# How pictures of each kind are encoded; each takes more than 100,000 bytes to decode 400 x 300 pixels.
KINDS: list[tuple[str, str, dict[str, Any]]] = [
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "LA", {}),
    ("GIF", "P", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "L", {"compression": "tiff_adobe_deflate"}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("AVIF", "RGB", {"speed": 10}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG2000", "RGB", {}),
]


@pytest.mark.parametrize(("kind", "mode", "options"), KINDS)
def test_a_file_may_take_what_its_bytes_warrant(
    kind: str, mode: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    detailed = noise(400, 300, mode if mode != "P" else "L")
    flat = Image.new(mode, (400, 300))
    expected = as_tower(encoded(detailed, kind, **options))
    monkeypatch.setattr(_bounds, "_FREE", 100_000)
    monkeypatch.setattr(_bounds, "survey", lambda _: None)  # what it counts is not by pixels
    np.testing.assert_array_equal(as_tower(encoded(detailed, kind, **options)), expected)  # type: ignore[arg-type]
    with pytest.raises(ImageTooLargeError, match=r"120,000 pixels (coded )?in [\d,]+ bytes"):
        as_tower(encoded(flat, kind, **options))


def test_large_pictures_of_one_color_are_read() -> None:
    assert as_tower(encoded(Image.new("1", (9000, 9000), 1), "TIFF", compression="group4")) is not None
    assert as_tower(encoded(Image.new("RGB", (8000, 6000), "white"), "JPEG")) is not None
    assert as_tower(encoded(Image.new("L", (6000, 4000), 9), "PNG")) is not None
    hundred_megapixels = PngImagePlugin.PngImageFile(io.BytesIO(png(10_000, 10_000, data=b"a")))
    assert _bounds.cost(hundred_megapixels, hundred_megapixels.size) == _bounds._FREE


@pytest.mark.slow
def test_honest_files_of_unusual_structure_are_read() -> None:
    picture = noise(1200, 800)
    tiled = {"tile_size": (128, 128), "precinct_size": (64, 64), "quality_layers": [40, 20, 10, 1]}
    for data in (
        encoded(picture, "JPEG2000", **tiled),
        encoded(picture, "JPEG2000", no_jp2=True, num_resolutions=7, irreversible=True),
        encoded(picture, "JPEG", progressive=True, quality=95),
        encoded(picture, "TIFF", strip_size=1),
        encoded(picture, "AVIF", speed=10, tile_rows=2, tile_cols=2),
        jpeg_with(
            segment(0xE1, b"Exif\0\0" + bytes(60_000)) + segment(0xE1, b"http://ns.adobe.com/" + bytes(60_000)) * 200
        ),
        b"P3\n# made by hand\n2 2\n# levels\n255\n" + b"1 2 3 # a pixel\n" * 4,
    ):
        assert as_tower(data) is not None


def test_a_jpeg_of_several_sequential_scans_is_counted() -> None:
    """Each component in a scan of its own: kept as coefficients until the last is read."""

    def head(data: bytes) -> tuple[str | None, bool]:
        return _jpeg.read_head(io.BytesIO(data))

    interleaved = encoded(noise(64, 64), "JPEG")
    assert head(interleaved) == (None, False)
    assert head(encoded(noise(64, 64), "JPEG", progressive=True)) == (None, True)
    at = interleaved.index(b"\xff\xda")
    apart = interleaved[:at] + segment(0xDA, bytes([1, 1, 0, 0, 63, 0])) + bytes(9)
    assert head(apart) == (None, True)
    assert head(encoded(noise(64, 64, "L"), "JPEG")) == (None, False)
    assert head(interleaved[:100]) == (None, False)


def test_what_is_coded_in_an_avif_is_found() -> None:
    def sizes(image: Image.Image, **options: Any) -> set[tuple[int, int, int]]:
        return {size for size in _avif.coded_sizes(encoded(image, "AVIF", **options)) if size != (0, 0, 0)}

    assert sizes(noise(65, 43)) == {(65, 43, 3)}
    assert sizes(noise(65, 43, "RGBA"), subsampling="4:4:4") == {(65, 43, 3), (65, 43, 6)}
    assert sizes(noise(65, 43), save_all=True, append_images=[noise(65, 43)]) == {(65, 43, 3)}


def test_the_parts_of_a_jpeg_2000_are_counted() -> None:
    found = _jpeg2000.survey(encoded(noise(300, 200), "JPEG2000", tile_size=(128, 128), num_resolutions=3))
    assert found is not None
    assert found.tiles == 3 * 2
    # Of each tile's component: one precinct at the smallest resolution, and one in 3 bands at each of 2 larger ones.
    assert found.precincts == 6 * 3 * (1 + 3 + 3)
    assert found.packets == 6 * 3 * 3
    assert _jpeg2000.survey(b"\xff\x4f\xff\x51") is None
    assert _jpeg2000.survey(struct.pack(">I4s", 0, b"jP  ")) is None


# --- big pictures beside each other


def test_big_pictures_wait_and_small_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_budget, "TOTAL", 1000)
    monkeypatch.setattr(_budget, "SMALL", 10)
    now, most = 0, 0
    guard = threading.Lock()

    def work(size: int) -> None:
        nonlocal now, most
        for _ in range(20):
            with _budget.one_picture():
                _budget.reserve(size)
                with guard:
                    now += size
                    most = max(most, now)
                time.sleep(0.0005)
                with guard:
                    now -= size

    threads = [threading.Thread(target=work, args=(size,)) for size in (400, 400, 700, 300, 1000, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert 700 < most <= 1000


def test_a_picture_larger_than_all_may_take_waits_until_it_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_budget, "TOTAL", 1000)
    monkeypatch.setattr(_budget, "SMALL", 10)
    order: list[str] = []

    def large() -> None:
        with _budget.one_picture():
            _budget.reserve(5000)
            order.append("large")

    with _budget.one_picture():
        _budget.reserve(200)
        _budget.reserve(100)  # less than is held
        thread = threading.Thread(target=large)
        thread.start()
        with _budget.one_picture():  # within another: nothing is given back at its end
            _budget.reserve(150)
        time.sleep(0.02)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "large"]
    _budget.reserve(5000)  # outside: nobody would give it back, so nothing is taken
    with _budget.one_picture():
        _budget.reserve(900)


def test_what_a_picture_takes_is_given_back_also_when_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_budget, "SMALL", 10)
    taken: list[int] = []
    take = _budget._shared.take
    monkeypatch.setattr(_budget._shared, "take", lambda size: (taken.append(size), take(size)))
    as_tower(encoded(noise(50, 40), "PNG"))
    with pytest.raises(ImageError, match="truncated"):
        as_tower(encoded(noise(50, 40), "PNG")[:-3000])
    as_tower(Image.new("RGB", (50, 40)))
    assert taken == [50 * 40 * 4] * 3
    assert _budget._shared.taken == 0


@pytest.mark.slow
def test_threads_take_no_more_memory_than_one() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from support.hostile_pictures import as_tower, encoded, peak_mib\n"
        "from clipita.images import budget as _budget\n"
        "from PIL import Image\n"
        "data = encoded(Image.new('RGB', (6000, 4000)), 'PNG')\n"  # 96 MB of pixels
        "_budget.TOTAL = 100 << 20\n"
        "_budget.give_back(); before = peak_mib()\n"
        "with ThreadPoolExecutor(4) as pool: list(pool.map(as_tower, [data] * 6))\n"
        "print(peak_mib() - before)"
    )
    arguments = [sys.executable, "-c", script, str(TESTS)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200


def test_a_forked_child_waits_for_none_of_its_parents_pictures() -> None:
    script = (
        "import os, threading\n"
        "from clipita.images import budget as _budget\n"
        "begun, go_on = threading.Event(), threading.Event()\n"
        "def hold():\n"
        "    with _budget.one_picture():\n"
        "        _budget.reserve(_budget.TOTAL); begun.set(); go_on.wait()\n"
        "thread = threading.Thread(target=hold); thread.start(); begun.wait()\n"
        "with _budget.one_picture():\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        with _budget.one_picture():\n"
        "            _budget.reserve(_budget.TOTAL)\n"
        "        os._exit(_budget._shared.taken != 0)\n"
        "    print(os.waitpid(child, 0)[1])\n"
        "go_on.set(); thread.join()"
    )
    arguments = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "0"


def test_errors_that_are_kept_keep_no_picture() -> None:
    script = (
        "import json, sys; sys.path.insert(0, sys.argv[1])\n"
        "from support.hostile_pictures import as_tower, encoded, noise, peak_mib\n"
        "from clipita.errors import ImageError\n"
        "data = encoded(noise(2000, 1500), 'PNG', compress_level=0)[:-1000]\n"
        "errors, peaks = [], []\n"
        "for _ in range(10):\n"
        "    try: as_tower(data)\n"
        "    except ImageError as error: errors.append(error)\n"
        "    peaks.append(peak_mib())\n"
        "print(json.dumps([len(errors), peaks[-1] - peaks[1]]))"
    )
    arguments = [sys.executable, "-c", script, str(TESTS)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    count, growth = json.loads(done.stdout)
    assert count == 10
    assert growth < 40  # each has 12 MB of pixels


# --- noise


def test_libtiff_writes_nothing_of_its_own() -> None:
    data = bytearray(encoded(noise(64, 64, "L"), "TIFF", compression="tiff_lzw"))
    data[20:2000] = bytes(1980)
    script = (
        "import io, sys; sys.path.insert(0, sys.argv[1])\n"
        "from support.hostile_pictures import as_tower\n"
        "from clipita.errors import ImageError\n"
        "from PIL import Image\n"
        "data = sys.stdin.buffer.read()\n"
        "try: as_tower(data)\n"
        "except ImageError as error: print(error)\n"
        "print('after', file=sys.stderr, flush=True)\n"
        "try: Image.open(io.BytesIO(data)).load()\n"
        "except OSError: pass"
    )
    arguments = [sys.executable, "-c", script, str(TESTS)]
    done = subprocess.run(arguments, input=bytes(data), capture_output=True, check=True)
    assert done.stdout.startswith(b"the image is damaged or incomplete")
    before, after = done.stderr.split(b"after\n")
    assert before == b""
    assert b"LZWDecode" in after  # for others it is as it was


def test_a_png_that_pillow_warns_of_is_read() -> None:
    data = png(40, 40)
    end = data.rindex(b"IEND") - 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert as_tower(data[:end] + chunk(b"acTL", bytes(8)) + data[end:]) is not None
