"""Named attacks and bad requests, each with the answer of a running server, which answers others afterwards.

`pytest -s` prints the table.
"""

import base64
import io
import json
import os
import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.reference import httpx  # type: ignore[attr-defined]
from support.reference import starlette as _starlette  # type: ignore[attr-defined] # noqa: F401
from support.server import Server, serving

TOKEN = "un-segreto-di-prova-lungo"
LIMIT = 1 << 20  # bytes of a request
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}
VISUAL = json.dumps({"clip": {"visual": {"modelName": "tiny"}}})
TEXTUAL = json.dumps({"clip": {"textual": {"modelName": "tiny"}}})


def png(width: int = 20, height: int = 10) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 white pixels in a few kilobytes."""
    header = (60000).to_bytes(4) * 2 + b"\x08\x00\x00\x00\x00"
    rows = zlib.compress(bytes(1 << 20))
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    made = [len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4) for name, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def form(**fields: Any) -> dict[str, Any]:
    return {"files": {name: value if isinstance(value, tuple) else (None, value) for name, value in fields.items()}}


def picture(data: bytes | None = None) -> tuple[str, bytes]:
    return ("foto.png", png() if data is None else data)


def post(path: str, **changes: Any) -> dict[str, Any]:
    return {"method": "POST", "path": path, **changes}


def get(path: str, **changes: Any) -> dict[str, Any]:
    return {"method": "GET", "path": path, **changes}


NO_TOKEN: dict[str, str] = {"authorization": ""}
FORM_HEAD = b'--x\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"

# Name -> the request, the status of its answer, and a part of the answer.
ATTACKS: dict[str, tuple[dict[str, Any], int, str]] = {
    # Who is let in
    "no token": (get("/api/status", headers=NO_TOKEN), 401, "token"),
    "a wrong token": (get("/api/status", headers={"authorization": "Bearer sbagliato"}), 401, "token"),
    "a token that is a prefix": (get("/metrics", headers={"authorization": f"Bearer {TOKEN[:-1]}"}), 401, "token"),
    "basic authorization": (get("/metrics", headers={"authorization": f"Basic {TOKEN}"}), 401, "token"),
    "a token in the address": (get(f"/api/status?token={TOKEN}", headers=NO_TOKEN), 401, "token"),
    "a token that is no text": (get("/metrics", headers={"authorization": b"Bearer \xff\xfe"}), 401, "token"),
    "a wrong login": (post("/api/login", headers=NO_TOKEN, json={"token": "sbagliato"}), 401, "not the token"),
    "a login by a number": (post("/api/login", headers=NO_TOKEN, json={"token": 7}), 400, "must be a text"),
    "DNS rebinding": (get("/api/status", headers={"host": "evil.example"}), 421, "--allow-host"),
    "a name that ends in ours": (get("/api/status", headers={"host": "localhost.evil.example"}), 421, "--allow-host"),
    "an empty Host": (get("/api/status", headers={"host": ""}), 421, "--allow-host"),
    "another page's script": (
        post("/api/search", headers={"origin": "https://evil.example"}, json={"text": "un gatto"}), 403, "another page",
    ),
    "a sandboxed page": (post("/api/search", headers={"origin": "null"}, json={"text": "x"}), 403, "another page"),
    "another page's picture": (get("/api/photo/0", headers={"sec-fetch-site": "cross-site"}), 403, "another page"),
    "a page of the same site": (get("/metrics", headers={"sec-fetch-site": "same-site"}), 403, "another page"),
    # Ways to the file system
    "dots in a path": (get("/../../etc/passwd"), 404, "Not Found"),
    "dots that are encoded": (get("/%2e%2e/%2e%2e/etc/passwd"), 404, "Not Found"),
    "a path as a photograph": (get("/api/photo/..%2f..%2fetc%2fpasswd"), 404, "Not Found"),
    "a name as a photograph": (get("/api/photo/b.png"), 404, "no photograph of that number"),
    "a path to be like": (post("/api/search", json={"photo": "/etc/passwd"}), 404, "no photograph of that number"),
    "a path as more of this": (
        post("/api/search", json={"text": "un gatto", "more": [{"photo": "../segreto.png"}]}), 404, "no photograph",
    ),
    "an archive that is not there": (post("/api/search", json={"text": "un gatto", "archive": 99}), 404, "no archive"),
    "a file's name with a path": (
        post("/predict", **form(entries=VISUAL, image=("../../etc/cron.d/x", png()))), 200, "imageWidth",
    ),
    # Ways to make the server open a connection
    "an address for OpenAI": (
        post("/v1/embeddings", json={"model": "tiny", "input": [{"image": "http://169.254.169.254/latest"}]}), 400,
        "no address is opened",
    ),
    "a file's address for OpenAI": (
        post("/v1/embeddings", json={"model": "tiny", "input": [{"image_url": {"url": "file:///etc/passwd"}}]}), 400,
        "no address is opened",
    ),
    "a drawing that names a file": (post("/predict", **form(entries=VISUAL, image=("x.svg", SVG))), 422, "detail"),
    "a model by its address": (
        post("/predict", **form(entries=json.dumps({"clip": {"textual": {"modelName": "http://evil.example/m"}}}),
                                text="un gatto")), 500, "does not load",
    ),
    "a model by its folder": (post("/v1/embeddings", json={"model": "/etc", "input": "x"}), 404, "no model"),
    # Too much
    "a body that is too long": (post("/predict", content=bytes(LIMIT + 1)), 413, "at most"),
    "a body of unsaid length": (
        post("/predict", content=iter([FORM_HEAD, *[bytes(1 << 16)] * 32]),
             headers={"content-type": "multipart/form-data; boundary=x"}), 413, "at most",
    ),
    "a picture of too many pixels": (post("/predict", **form(entries=VISUAL, image=("b.png", bomb()))), 413, "pixels"),
    "the same as a data URL": (
        post("/v1/embeddings", json={
            "model": "tiny", "input": "data:image/png;base64," + base64.b64encode(bomb()).decode()}), 413, "pixels",
    ),
    "a thousand fields": (
        post("/predict", files={f"f{number}": (None, "x") for number in range(1000)}), 400, "Too many fields",
    ),
    "two files": (
        post("/predict", files=[("image", picture()), ("image", picture())]), 400, "Too many files",
    ),
    "a field that is too long": (post("/predict", **form(entries="x" * 300_000, text="x")), 400, "exceeded"),
    "a thousand inputs": (post("/v1/embeddings", json={"model": "tiny", "input": ["x"] * 1000}), 400, "1 to 512"),
    "a thousand labels": (
        post("/api/label", **form(labels=json.dumps([f"e{n}" for n in range(1000)]), image=picture())), 400, "at most",
    ),
    "a billion photographs": (post("/api/search", json={"text": "x", "count": 10**9}), 400, "from 1 to 500"),
    "JSON of ten thousand brackets": (post("/api/search", content=b"[" * 10_000), 400, "no JSON"),
    "brackets as entries": (post("/predict", **form(entries="[" * 10_000, text="x")), 422, "entries"),
    "a number of ten thousand digits": (post("/api/search", content=b'{"count":' + b"9" * 9999 + b"}"), 400, ""),
    # What is not what it says
    "no form": (post("/predict", content=b"{}"), 415, "multipart"),
    "a form without a boundary": (
        post("/predict", content=b"x", headers={"content-type": "multipart/form-data"}), 400, "boundary",
    ),
    "a form that is cut": (
        post("/predict", content=b"--x\r\nContent-Disposition: form-data; name=\"entries\"\r\n\r\n{",
             headers={"content-type": "multipart/form-data; boundary=x"}), 422, "entries",
    ),
    "a picture that is no picture": (post("/predict", **form(entries=VISUAL, image=("x", b"MZ" * 99))), 422, ""),
    "a picture that is cut": (
        post("/predict", **form(entries=VISUAL, image=picture(png(99, 99)[:-40]))), 422, "the picture is truncated",
    ),
    "an empty picture": (post("/predict", **form(entries=VISUAL, image=picture(b""))), 400, "empty"),
    "a picture that is a text": (post("/predict", **form(entries=VISUAL, image="una foto")), 400, "must be a file"),
    "entries without input": (post("/predict", **form(entries=VISUAL)), 400, "no file"),
    "entries without text": (post("/predict", **form(entries=TEXTUAL)), 400, "no field"),
    "no entries": (post("/predict", **form(text="un gatto")), 422, "entries"),
    "entries of another kind": (post("/predict", **form(entries='{"clip": {"audio": {}}}', text="x")), 422, "entries"),
    "faces": (post("/predict", **form(entries='{"facial-recognition": {}}', image=picture())), 400, "no faces"),
    "a text of nothing": (post("/predict", **form(entries=TEXTUAL, text="  ")), 422, "nothing to read"),
    "a text with a NUL": (post("/v1/embeddings", json={"model": "tiny", "input": "un\0gatto"}), 422, "NUL"),
    "half a character": (
        post("/v1/embeddings", content=b'{"model": "tiny", "input": "un \\ud800 gatto"}'), 422, "surrogate",
    ),
    "tokens": (post("/v1/embeddings", json={"model": "tiny", "input": [[1, 2, 3]]}), 400, "tokens are not taken"),
    "no base64": (
        post("/v1/embeddings", json={"model": "tiny", "input": "data:image/png;base64,!!!"}), 400, "no base64",
    ),
    "a date that is none": (post("/api/search", json={"text": "x", "since": "31/12/2023"}), 400, "2023-08-14"),
    "a search for nothing": (post("/api/search", json={}), 400, "the search must be"),
    "a search by a list": (post("/api/search", json={"text": ["x"]}), 400, "the search must be"),
    "SQL as a sentence": (post("/api/search", json={"text": "'; DROP TABLE photos; --"}), 200, "photos"),
    "a script as a sentence": (post("/api/search", json={"text": "<script>alert(1)</script>"}), 200, "photos"),
    "labels that are no JSON": (post("/api/label", **form(labels="gatto", image=picture())), 400, "no JSON"),
    "the same label twice": (post("/api/label", **form(labels='["cane","cane"]', image=picture())), 422, "both"),
    "where nothing is": (post("/api/where", **form(texts="[]", image=picture())), 400, "at least one"),
    "another method": ({"method": "DELETE", "path": "/api/search"}, 405, "Method"),
    "no such page": (get("/admin"), 404, "Not Found"),
}  # fmt: skip


@pytest.fixture(scope="module")
def server(shared_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a token and small limits, over a folder with a photograph, and links that lead out of it."""
    folder = tmp_path_factory.mktemp("attacked")
    photos = folder / "foto"
    photos.mkdir()
    (photos / "b.png").write_bytes(png())
    (folder / "segreto.png").write_bytes(png(30, 30))
    os.symlink("../segreto.png", photos / "collegata.png")
    arguments = (photos, "--token", TOKEN, "--max-upload", LIMIT >> 20)
    with serving(folder / "log.txt", *arguments, model=shared_bundle) as running:
        yield running
        running.process.terminate()
        running.process.wait(30)
        printed = running.log.read_text()
        for private in ("DROP TABLE", "script", TOKEN, "Traceback", "segreto", "gatto"):
            assert private not in printed


@pytest.fixture(scope="module")
def table() -> Iterator[Callable[[str, int, str], None]]:
    rows: list[str] = []
    yield lambda name, status, text: rows.append(f"| {name} | {status} | {text[:90]} |")
    print("\n\n| attack | status | answer |\n|---|---|---|\n" + "\n".join(rows))


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_gets_its_answer(server: Server, attack: str, table: Callable[[str, int, str], None]) -> None:
    asked, status, part = ATTACKS[attack]
    request = {name: value for name, value in asked.items() if name not in ("method", "path", "headers")}
    headers = {**AUTHORIZED, **asked.get("headers", {})}
    with httpx.Client(timeout=30) as client:
        answer = client.request(asked["method"], server.address + asked["path"], headers=headers, **request)
        assert answer.status_code == status, answer.text
        assert part in answer.text
        assert "root:" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        table(attack, answer.status_code, answer.text.replace("|", "/"))
        assert client.get(server.address + "/health").json()["status"] == "ok"


RAW: dict[str, tuple[bytes, bytes]] = {
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9 + b"\r\n\r\n", b"400"),
    "a head of a megabyte": (b"GET / HTTP/1.1\r\nX: " + b"x" * (1 << 20), b"400"),
    "two lengths": (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 9\r\n\r\nx", b"400",
    ),
    "a length that is no number": (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", b"400",
    ),
    "two hosts": (b"GET /api/status HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", b"400"),
    "a length that is negative": (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", b"400"),
    "a line end in a header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n", b"400"),
    "a proxy's request": (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", b"421"),
    "a WebSocket": (
        b"GET /api/status HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", b"401",
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", RAW)
def test_bytes_that_are_no_request_get_their_answer(
    server: Server, attack: str, table: Callable[[str, int, str], None]
) -> None:
    sent, status = RAW[attack]
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        try:
            client.sendall(sent)
        except OSError:  # it hung up already
            return
        answer = b""
        try:
            while b"\r\n" not in answer and (more := client.recv(4096)):
                answer += more
        except ConnectionResetError:
            pass
    assert not answer or status in answer.split(b"\r\n")[0], answer[:200]
    table(attack, int(status), answer.split(b"\r\n")[0].decode())
    assert httpx.get(server.address + "/health").status_code == 200


def test_a_link_out_of_the_archive_is_not_followed(server: Server) -> None:
    with httpx.Client(base_url=server.address, headers=AUTHORIZED) as client:
        for _ in range(200):
            (state,) = client.get("/api/status").json()["archives"]
            if state["phase"] == "ready":
                break
        found = client.post("/api/search", json={"text": "una foto", "show_all": True}).json()["photos"]
        shown = {photo["name"]: client.get(f"/api/photo/{photo['id']}") for photo in found}
    assert shown["b.png"].status_code == 200
    assert shown["b.png"].headers["content-type"] == "image/jpeg"
    if "collegata.png" in shown:
        assert shown["collegata.png"].status_code == 404
        assert "no longer in its archive" in shown["collegata.png"].text


def test_a_file_that_became_a_link_is_not_followed(shared_bundle: Path, tmp_path: Path) -> None:
    photos = tmp_path / "foto"
    photos.mkdir()
    (photos / "b.png").write_bytes(png())
    (tmp_path / "segreto.png").write_bytes(png(30, 30))
    with (
        serving(tmp_path / "log.txt", photos, model=shared_bundle) as running,
        httpx.Client(base_url=running.address) as client,
    ):
        while client.get("/api/status").json()["archives"][0]["phase"] != "ready":
            pass
        (photo,) = client.post("/api/search", json={"text": "una foto", "show_all": True}).json()["photos"]
        (photos / "b.png").unlink()
        (photos / "b.png").symlink_to(tmp_path / "segreto.png")
        assert client.get(f"/api/photo/{photo['id']}").status_code == 404
        (photos / "b.png").unlink()
        os.mkfifo(photos / "b.png")  # which would block whoever opens it
        assert client.get(f"/api/photo/{photo['id']}").status_code == 404
