"""Downloads from a web on this machine that misbehaves in all ways that are told of; and the rules by themselves."""

import gzip
import io
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from clipita_train.data.pairs.download import STATUSES, download, image_path
from clipita_train.data.pairs.fetch import Settings
from clipita_train.data.pairs.web import is_public, opted_out, retry_after
from PIL import Image
from support.web_stand_in import Web, answer

QUICK = {"contact": "somebody@example.org", "allowed": ("127.0.0.0/8",), "rate": 1000.0, "back_off": 0.01}


def picture(width=40, height=30, kind="JPEG", **options):
    pixels = np.random.default_rng(width * height).integers(0, 255, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


GOOD = picture()


@pytest.fixture
def web():
    stand_in = Web()
    yield stand_in
    stand_in.close()


def get(web, folder, *paths, again=None, host="127.0.0.1", **changes):
    """The outcomes of these paths."""
    rows = [(path, web.address(path, host) if path.startswith("/") else path) for path in paths]
    more = {} if again is None else {"again": again}
    results = download(rows, folder, Settings(**{**QUICK, **changes}), **more)
    assert [key for key, _ in results] == list(paths)
    return [outcome for _, outcome in results]


def statuses(*arguments, **changes):
    return [outcome.status for outcome in get(*arguments, **changes)]


def test_images_are_kept_as_they_came(web, tmp_path):
    web.pages = {"/a.jpg": answer(GOOD), "/b.png": answer(picture(7, 9, "PNG")), "/c": answer(picture(8, 8, "WEBP"))}
    outcomes = get(web, tmp_path, "/a.jpg", "/b.png", "/c", "/a.jpg")
    assert [(o.status, o.width, o.height) for o in outcomes] == [
        ("ok", 40, 30), ("ok", 7, 9), ("ok", 8, 8), ("ok", 40, 30),
    ]  # fmt: skip
    assert image_path(tmp_path, web.address("/a.jpg")).read_bytes() == GOOD
    assert outcomes[0].bytes == len(GOOD)
    assert sorted(web.paths()) == ["/a.jpg", "/b.png", "/c"]  # once each
    sent = web.requests[0].headers
    assert sent["User-Agent"].startswith("clipita-train/")
    assert "(somebody@example.org)" in sent["User-Agent"]


def test_what_is_no_image_is_named(web, tmp_path):
    web.pages = {
        "/html.jpg": answer(b"<html>not found</html>", Content_Type="image/jpeg"),
        "/empty.jpg": answer(b""),
        "/half.jpg": answer(GOOD[: len(GOOD) // 2]),  # a length that fits the half
        "/half-open.jpg": answer(GOOD[: len(GOOD) // 2], Content_Length=None, Connection="close"),
        "/half.png": answer(picture(64, 64, "PNG")[:3000]),
        "/svg.jpg": answer(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    }
    outcomes = get(web, tmp_path, *web.pages)
    assert {outcome.status for outcome in outcomes} == {"not_image"}
    assert "<html>" in outcomes[0].detail
    assert "0 bytes" in outcomes[1].detail
    assert "truncated" in outcomes[2].detail
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files - {".lock"} == {STATUSES}


def test_an_answer_that_breaks_off_is_cut_and_tried_again(web, tmp_path):
    web.pages = {
        "/cut.jpg": answer(GOOD[:100], Content_Length=str(len(GOOD))),
        "/then-good.jpg": [answer(GOOD[:100], Content_Length=str(len(GOOD))), answer(GOOD)],
    }
    assert statuses(web, tmp_path, "/cut.jpg", "/then-good.jpg") == ["cut", "ok"]
    assert web.paths().count("/cut.jpg") == 3


def test_what_is_too_large_is_not_read_to_its_end(web, tmp_path):
    endless = GOOD + bytes(4_000_000)
    web.pages = {
        "/says-so": answer(endless),
        "/says-nothing": answer(endless, Content_Length=None, Connection="close", pause=0.001),
        "/bomb": answer(gzip.compress(bytes(50_000_000)), Content_Encoding="gzip"),
        "/wide": answer(picture(500, 400, "PNG")),
    }
    began = time.monotonic()
    outcomes = get(web, tmp_path, *web.pages, max_bytes=1_000_000, max_pixels=100_000)
    assert [outcome.status for outcome in outcomes] == ["too_large"] * 4
    assert "200,000" in outcomes[3].detail
    assert time.monotonic() - began < 60


def test_compressed_answers_are_unpacked_and_lies_about_it_named(web, tmp_path):
    packed = gzip.compress(GOOD)
    web.pages = {
        "/gzip": answer(packed, Content_Encoding="gzip"),
        "/deflate": answer(zlib.compress(GOOD), Content_Encoding="deflate"),
        "/ends-early": answer(packed[:-20], Content_Encoding="gzip"),
        "/is-not": answer(GOOD, Content_Encoding="gzip"),
        "/brotli": answer(GOOD, Content_Encoding="br"),
    }
    assert statuses(web, tmp_path, *web.pages) == ["ok", "ok", "cut", "not_image", "not_image"]
    assert image_path(tmp_path, web.address("/gzip")).read_bytes() == GOOD
    assert web.requests[0].headers["Accept-Encoding"] == "identity"


def test_slow_answers_time_out(web, tmp_path):
    web.pages = {"/drips": answer(GOOD * 100, pause=0.2), "/good": answer(GOOD)}
    assert statuses(web, tmp_path, "/drips", "/good", timeout=0.6, attempts=1) == ["timeout", "ok"]


def test_answers_that_are_not_http_are_named(web, tmp_path):
    def garbage(handler):
        handler.wfile.write(b"\x00\xff\r\n\r\n")
        handler.close_connection = True

    web.pages = {"/garbage": garbage, "/header": answer(GOOD, X_Long="x" * 100_000)}
    assert statuses(web, tmp_path, "/garbage", "/header", attempts=1) == ["connection", "connection"]


def test_redirects_are_followed_but_not_for_ever_and_not_inside(web, tmp_path):
    def to(place):
        return answer(b"", 302, Location=place)

    web.pages = {
        "/away": to("/there?x=1"),
        "/there": answer(GOOD),
        "/loop": to("/loop"),
        "/inside": to("http://169.254.169.254/latest/meta-data"),
        "/mapped": to("http://[::ffff:10.0.0.1]/"),
        "/file": to("file:///etc/passwd"),
        "/nowhere": to("http://["),
        "/relative-host": to(f"//localhost:{web.port}/there"),
    }
    assert statuses(web, tmp_path, *web.pages) == [
        "ok", "ok", "redirects", "blocked", "blocked", "bad_address", "bad_address", "ok",
    ]  # fmt: skip
    assert web.paths().count("/loop") == 6


def test_without_the_exception_this_machine_is_refused_under_all_its_names(web, tmp_path):
    web.pages = {"/": answer(GOOD)}
    names = ["127.0.0.1", "localhost", "127.1", "2130706433", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"]
    names += ["[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "127.0.0.1."]
    places = [web.address("/", host) for host in names]
    outcomes = get(web, tmp_path, *places, allowed=(), attempts=1)
    assert {outcome.status for outcome in outcomes} <= {"blocked", "bad_address"}
    assert [outcome.status for outcome in outcomes[:2]] == ["blocked", "blocked"]
    assert web.requests == []


def test_a_name_that_changes_its_address_is_refused_where_the_connection_goes(web, tmp_path, monkeypatch):
    asked = []

    def resolve(host, port, *_, **__):
        if host in ("127.0.0.1", "localhost"):
            return real(host, port, *_, **__)
        asked.append(host)
        if host == "nobody.example":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        places = {"both.example": ["10.0.0.1", "127.0.0.1"]}.get(host, ["127.0.0.1"])
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port)) for place in places]

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    web.pages = {"/": answer(GOOD)}
    places = [web.address("/", host) for host in ("rebinds.example", "both.example", "0x7f000001", "nobody.example")]
    closed = statuses(web, tmp_path / "closed", *places, allowed=(), attempts=1)
    assert closed == ["blocked", "blocked", "blocked", "dns"]
    assert web.requests == []
    # With one of its addresses allowed, that one is taken and the other is not tried.
    assert statuses(web, tmp_path / "open", *places[:2], attempts=1, timeout=5) == ["ok", "ok"]
    assert "rebinds.example" in asked


def test_addresses_that_are_none_are_named(web, tmp_path):
    odd = [
        "ftp://example.org/a.jpg",
        "not an address",
        "http://",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "javascript:alert(1)",
        "http://\ud800/",
        "",
    ]
    assert set(statuses(web, tmp_path, *odd, attempts=1)) == {"bad_address"}
    assert statuses(web, tmp_path, *odd, attempts=1) == ["bad_address"] * len(odd)  # as read back


def test_owners_who_opt_out_are_obeyed(web, tmp_path):
    web.pages = {
        "/noai": answer(GOOD, X_Robots_Tag="noai"),
        "/tdm": answer(GOOD, tdm_reservation="1"),
        "/yes": answer(GOOD, X_Robots_Tag="all", tdm_reservation="0"),
    }
    assert statuses(web, tmp_path, *web.pages) == ["opted_out", "opted_out", "ok"]
    assert not image_path(tmp_path, web.address("/noai")).exists()
    assert statuses(web, tmp_path, *web.pages) == ["opted_out", "opted_out", "ok"]
    assert len(web.requests) == 3  # nor asked again


@pytest.mark.slow
@pytest.mark.parametrize("in_seconds", [True, False])
def test_a_busy_host_is_left_alone_for_as_long_as_it_asks(web, tmp_path, in_seconds):
    later = datetime.now(UTC) + timedelta(seconds=3)
    wait = "1" if in_seconds else format_datetime(later, usegmt=True)
    web.pages = {"/a": [answer(b"", 429, Retry_After=wait), answer(GOOD)], "/b": answer(GOOD)}
    assert statuses(web, tmp_path, "/a", "/b", per_host=1) == ["ok", "ok"]
    assert web.paths()[0] == "/a"
    assert web.requests[1].at - web.requests[0].at > 0.95  # /b waits too: it is the host that is busy


def test_a_host_that_asks_for_more_than_a_run_waits_is_asked_no_more(web, tmp_path):
    web.pages = {"/a": answer(b"", 503, Retry_After="3600"), "/b": answer(GOOD)}
    first = get(web, tmp_path, "/a", *[f"/b?{i}" for i in range(20)], per_host=1)
    assert [outcome.status for outcome in first] == ["rate_limited"] * 21
    assert "127.0.0.1 asks to wait for 3600 s" in first[3].detail
    assert web.paths() == ["/a"]
    web.pages["/a"] = answer(GOOD)
    assert statuses(web, tmp_path, "/a", "/b?3") == ["ok", "ok"]  # the next run


def test_hosts_are_asked_at_their_rate_and_not_by_too_many_at_once(web, tmp_path):
    web.pages = {f"/{i}": answer(GOOD, pause=0.05) for i in range(12)}
    paths = list(web.pages)
    rows = [(path, web.address(path, host)) for path in paths for host in ("127.0.0.1", "127.0.0.2")]
    done = download(rows, tmp_path, Settings(**{**QUICK, "rate": 20.0, "per_host": 2}))
    assert {outcome.status for _, outcome in done} == {"ok"}
    for host in ("127.0.0.1", "127.0.0.2"):
        times = sorted(request.at for request in web.requests if request.host == host)
        assert len(times) == 12
        assert times[-1] - times[0] > 11 / 20 * 0.9
    assert web.open_most <= 4


def test_connections_are_limited_over_all_hosts(web, tmp_path):
    web.pages = {"/": answer(GOOD, pause=0.1)}
    places = [web.address("/", f"127.0.0.{host}") for host in range(1, 13)]
    assert statuses(web, tmp_path, *places, connections=3) == ["ok"] * 12
    assert web.open_most <= 3


MANY_HOSTS = """
import resource, sys
from pathlib import Path
from clipita_train.data.pairs.download import download
from clipita_train.data.pairs.fetch import Settings
port, folder = sys.argv[1:]
rows = [(str(i), f"http://127.0.{i // 200}.{1 + i % 200}:{port}/") for i in range(400)]
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
settings = Settings("a@example.org", allowed=("127.0.0.0/8",), connections=16, attempts=1)
print({outcome.status for _, outcome in download(rows, Path(folder), settings)})
"""


def test_many_hosts_do_not_use_up_the_open_files_of_a_process(web, tmp_path):
    web.pages = {"/": answer(GOOD)}
    command = [sys.executable, "-c", MANY_HOSTS, str(web.port), str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "{'ok'}\n"


def test_only_what_may_pass_is_tried_again_in_the_next_run(web, tmp_path):
    web.pages = {"/gone": answer(b"", 404), "/down": answer(b"", 500), "/forbidden": answer(b"", 403)}
    paths = ["/gone", "/down", "/forbidden"]
    assert statuses(web, tmp_path, *paths) == ["http_404", "http_500", "http_403"]
    assert [web.paths().count(path) for path in paths] == [1, 3, 1]
    web.pages = dict.fromkeys(web.pages, answer(GOOD))
    assert statuses(web, tmp_path, *paths) == ["http_404", "ok", "http_403"]
    assert statuses(web, tmp_path, *paths, again=["http_404"]) == ["ok", "ok", "http_403"]
    requests = len(web.requests)
    image_path(tmp_path, web.address("/gone")).unlink()  # a file that somebody deleted
    assert statuses(web, tmp_path, *paths) == ["ok", "ok", "http_403"]
    assert len(web.requests) == requests + 1
    image_path(tmp_path, web.address("/gone")).write_bytes(b"")  # what a power cut may leave
    assert statuses(web, tmp_path, *paths) == ["ok", "ok", "http_403"]
    assert image_path(tmp_path, web.address("/gone")).read_bytes() == GOOD


def test_nobody_is_there(web, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"http://127.0.0.1:{free.getsockname()[1]}/"
    assert statuses(web, tmp_path, place) == ["connection"]
    assert statuses(web, tmp_path, f"https://127.0.0.1:{web.port}/", attempts=1) == ["connection"]  # no TLS there


def test_images_are_encoded_again_upright_and_without_their_metadata(web, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "the camera's maker"
    web.pages = {
        "/large": answer(picture(800, 400, exif=exif)),
        "/small": answer(picture(30, 20, "PNG")),
        "/clear": answer(clear_png()),
    }
    outcomes = get(web, tmp_path, *web.pages, max_side=200, quality=80)
    assert [(o.status, o.width, o.height) for o in outcomes] == [("ok", 400, 800), ("ok", 30, 20), ("ok", 9, 9)]
    files = [image_path(tmp_path, web.address(path)).read_bytes() for path in web.pages]
    kept = [Image.open(io.BytesIO(file)) for file in files]
    assert [(image.format, image.size) for image in kept] == [
        ("JPEG", (100, 200)), ("JPEG", (30, 20)), ("JPEG", (9, 9)),
    ]  # fmt: skip
    assert not kept[0].getexif()
    assert kept[2].convert("RGB").getpixel((4, 4)) == (255, 255, 255)


def clear_png():
    buffer = io.BytesIO()
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


KILLED = """
import sys
from pathlib import Path
from clipita_train.data.pairs.download import download
from clipita_train.data.pairs.fetch import Settings
port, folder = sys.argv[1:]
rows = [(str(i), f"http://127.0.0.1:{port}/{i}") for i in range(200)]
download(rows, Path(folder), Settings("a@example.org", allowed=("127.0.0.0/8",), rate=60.0))
"""


@pytest.mark.slow
def test_a_kill_loses_nothing_that_was_done(web, tmp_path):
    web.pages = {f"/{i}": answer(picture(20 + i, 20)) for i in range(200)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(web.port), str(tmp_path)])
    deadline = time.monotonic() + 120
    while len(web.requests) < 40 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = [json.loads(line) for line in (tmp_path / STATUSES).read_text().splitlines()]
    assert 10 <= len(done) < 200
    with (tmp_path / STATUSES).open("a") as file:
        file.write('{"address": "http://127.0.0.1/cut o')  # a line that the kill cut off
    before = len(web.requests)
    assert statuses(web, tmp_path, *[f"/{i}" for i in range(200)]) == ["ok"] * 200
    asked_again = web.paths()[before:]
    assert not {f"/{fields['address'].rpartition('/')[2]}" for fields in done} & set(asked_again)
    assert len(asked_again) == 200 - len(done)
    lines = (tmp_path / STATUSES).read_text().splitlines()
    assert len(lines) == 201  # the 200, and the one cut off on a line of its own
    for i in range(200):
        assert image_path(tmp_path, web.address(f"/{i}")).read_bytes() == picture(20 + i, 20)


def test_two_processes_do_not_download_into_one_folder(web, tmp_path):
    web.pages = {"/": answer(GOOD, pause=1.0)}
    thread = threading.Thread(target=lambda: get(web, tmp_path, "/"))
    thread.start()
    deadline = time.monotonic() + 60
    while not web.requests and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(RuntimeError, match="another process downloads"):
        get(web, tmp_path, "/")
    thread.join()


@pytest.mark.skipif(os.getuid() == 0 and not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_an_error_and_not_a_status(web, tmp_path):
    web.pages = {"/": answer(GOOD)}
    (tmp_path / STATUSES).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        get(web, tmp_path, "/")


@pytest.mark.parametrize("contact", ["", "me", "a@b\nX: y", "è@example.org", "(a@example.org)"])
def test_a_contact_is_asked_for(contact):
    with pytest.raises(ValueError, match="contact"):
        Settings(contact)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="rate must be more than 0"):
        Settings("a@example.org", rate=0)
    with pytest.raises(ValueError, match="does not appear to be"):
        Settings("a@example.org", allowed=("10.0.0/99",))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("64:ff9b::808:808", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("127.0.0.2", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("192.0.0.8", False),
        ("198.18.0.1", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("::ffff:192.168.0.1", False),
        ("::192.168.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("2001:0:1::1", False),
        ("2001:db8::1", False),
    ],
)
def test_public_addresses(address, public):
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    ("header", "obeyed"),
    [
        (("X-Robots-Tag", "noai"), True),
        (("x-robots-tag", "NOINDEX, nofollow"), True),
        (("X-Robots-Tag", "nofollow,noimageai"), True),
        (("X-Robots-Tag", "none"), True),
        (("X-Robots-Tag", "clipita-train: noai"), True),
        (("X-Robots-Tag", "*: noindex"), True),
        (("X-Robots-Tag", "otherbot: noindex, noai"), False),
        (("X-Robots-Tag", "max-image-preview: large, noimageindex"), True),
        (("X-Robots-Tag", "unavailable_after: 25 Jun 2030 15:00:00 PST"), False),
        (("X-Robots-Tag", "all, nosnippet"), False),
        (("TDM-Reservation", "1"), True),
        (("tdm-reservation", "0"), False),
        (("Content-Usage", "train-ai=n"), True),
        (("Content-Usage", "search, train-ai=n;exceptions=none"), True),
        (("Content-Usage", "search=y, train-ai=y"), False),
    ],
)
def test_opt_outs(header, obeyed):
    assert bool(opted_out([("Server", "x"), header], "clipita-train")) is obeyed


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 59.0),
        ("Friday, 31-Dec-99 23:59:59 GMT", 59.0),
        ("Fri Dec 31 23:59:59 1999", 59.0),
        ("Fri, 31 Dec 1999 23:00:00 GMT", 0.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("١٢", None),
    ],
)
def test_retry_after(value, seconds):
    assert retry_after({"Retry-After": value}, datetime(1999, 12, 31, 23, 59, tzinfo=UTC)) == seconds
