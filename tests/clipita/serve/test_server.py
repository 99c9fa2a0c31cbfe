"""The server as a process: who is let in, many clients and slow ones, a full queue, and its end."""

import contextlib
import io
import json
import select
import signal
import socket
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from support import ROOT
from support.reference import httpx  # type: ignore[attr-defined]
from support.reference import starlette as _starlette  # type: ignore[attr-defined] # noqa: F401
from support.server import serving

from clipita.errors import ClipitaError
from clipita.serve.run import _listen
from clipita.serve.settings import Settings, read_alias

pytestmark = pytest.mark.slow

PHOTO = ROOT / "examples" / "photos" / "gatto.jpg"


def predict(client: httpx.Client, name: str = "clipita-mini", data: bytes | None = None) -> httpx.Response:
    entries = json.dumps({"clip": {"visual": {"modelName": name}}})
    files = {"entries": (None, entries), "image": ("x", PHOTO.read_bytes() if data is None else data)}
    return client.post("/predict", files=files)


def metrics(client: httpx.Client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_many_clients_share_batches(tmp_path: Path) -> None:
    with serving(tmp_path / "log.txt") as server, httpx.Client(base_url=server.address, timeout=60) as client:
        predict(client)  # loads the tower
        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda _: predict(client), range(96)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["clip"] for answer in answers}) == 1
        found = metrics(client)
        assert found['clipita_embedded{queue="images"}'] == 97
        assert found['clipita_batches{queue="images"}'] < 60
        assert found['clipita_requests_total{route="/predict",status="200"}'] == 97
        assert found["process_resident_memory_bytes"] > 1 << 20


def test_a_full_queue_says_when_to_come_again(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "log.txt", "--max-waiting", 2) as server,
        httpx.Client(base_url=server.address, timeout=60) as client,
        ThreadPoolExecutor(48) as pool,
    ):
        answers = list(pool.map(lambda _: predict(client), range(144)))
        assert {answer.status_code for answer in answers} == {200, 503}
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert refused.headers["retry-after"] == "1"
        assert "Ask again" in refused.text
        assert predict(client).status_code == 200


def test_a_slow_client_holds_nobody_up(tmp_path: Path, shared_bundle: Path) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with serving(tmp_path / "log.txt", model=shared_bundle) as server:
        slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
        for number, connection in enumerate(slow):  # half a head, or a head and no body
            connection.sendall(head if number % 2 else head + b"Content-Length: 1000\r\n\r\n--x")
        with httpx.Client(base_url=server.address, timeout=20) as client:
            for _ in range(5):
                assert client.get("/health").status_code == 200
        for connection in slow:
            connection.close()


def test_bodies_that_are_held_are_bounded_all_together(tmp_path: Path, shared_bundle: Path) -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    with (
        serving(tmp_path / "log.txt", "--max-upload", 1, "--patience", 600, model=shared_bundle) as server,
        contextlib.ExitStack() as stack,
    ):
        held = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60)) for _ in range(20)
        ]
        for connection in held:
            connection.sendall(head + b" " * 990_000)  # and then nothing
        answered: list[socket.socket] = []
        while len(answered) < 3:  # 16 are held, and wait for their ends
            answered, _, _ = select.select(held, [], [], 60)
            assert answered
        assert {connection.recv(12) for connection in answered} == {b"HTTP/1.1 503"}
        assert len(answered) < 10
        for connection in held:
            connection.close()
        with httpx.Client(base_url=server.address, timeout=60) as client:
            while predict(client, "tiny").status_code == 503:
                time.sleep(0.1)
            assert predict(client, "tiny").status_code == 200


def test_who_sends_nothing_is_hung_up_on(tmp_path: Path, shared_bundle: Path) -> None:
    with serving(tmp_path / "log.txt", "--patience", 1, model=shared_bundle) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as silent:
            assert silent.recv(100) == b""
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as half:
            half.sendall(b"GET / HTTP/1.1\r\nHost: loc")
            assert half.recv(100) == b""
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as slow:
            slow.sendall(b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            assert slow.recv(100).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_what_has_begun(tmp_path: Path, number: signal.Signals) -> None:
    large = io.BytesIO()
    Image.effect_noise((4000, 3000), 50).convert("RGB").save(large, "JPEG")
    with serving(tmp_path / "log.txt") as server, httpx.Client(base_url=server.address, timeout=60) as client:
        predict(client)
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(predict, client, "clipita-mini", large.getvalue()) for _ in range(8)]
            while metrics(client)['clipita_batches{queue="images"}'] < 2:
                time.sleep(0.002)
            server.process.send_signal(number)
            begun = [future.exception() or future.result().status_code for future in asked]
        assert server.process.wait(30) == 0
        assert 200 in begun
        assert set(map(str, begun)) <= {"200", *(str(item) for item in begun if isinstance(item, httpx.ConnectError))}
        assert not server.log.read_text()


def test_an_update_stops_with_the_server_and_keeps_what_it_did(tmp_path: Path) -> None:
    photos = tmp_path / "foto"
    photos.mkdir()
    for number in range(600):
        Image.new("RGB", (300, 300), (number % 256, number // 256, 90)).save(photos / f"{number}.png")
    with serving(tmp_path / "log.txt", photos) as server, httpx.Client(base_url=server.address, timeout=60) as client:
        seen: list[int] = []
        while not seen or seen[-1] < 64:
            (state,) = client.get("/api/status").json()["archives"]
            seen.append(state["done"])
            time.sleep(0.02)
        assert state["phase"] == "growing"
        assert state["total"] == 600
        found = client.post("/api/search", json={"text": "un muro rosso", "show_all": True})
        assert found.json()["photos"]  # it can be searched meanwhile
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    with sqlite3.connect(photos / ".clipita" / "index.sqlite") as rows:
        ((kept,),) = rows.execute("SELECT count(*) FROM contents")
    rows.close()
    assert 32 <= kept < 600


def test_elsewhere_a_token_is_needed_and_made(tmp_path: Path, shared_bundle: Path) -> None:
    with serving(tmp_path / "log.txt", "--host", "0.0.0.0", "--immich", model=shared_bundle) as server:
        (token,) = [line.split()[1] for line in server.log.read_text().splitlines() if line.startswith("token: ")]
        address = f"http://127.0.0.1:{server.port}"
        with httpx.Client(base_url=address) as client:
            assert client.get("/api/status").status_code == 401
            assert client.get("/health").status_code == 200
            assert predict(client, "tiny").status_code == 200  # Immich's alone
            assert client.post("/v1/embeddings", json={"model": "tiny", "input": "x"}).status_code == 401
            assert client.get("/api/status", headers={"authorization": f"Bearer {token}"}).status_code == 200
            answer = client.post("/api/login", json={"token": token})
            cookie = answer.headers["set-cookie"].lower()
            assert "httponly" in cookie
            assert "samesite=strict" in cookie
            assert client.get("/api/status").status_code == 200  # by the cookie
            assert client.get("/metrics").status_code == 200


def test_settings_that_let_everyone_in_are_refused() -> None:
    with pytest.raises(ClipitaError, match="a token is needed"):
        Settings(host="0.0.0.0")
    with pytest.raises(ClipitaError, match="at least 16"):
        Settings(token="corto")
    assert Settings(host="192.168.1.7", token="x" * 16, hosts=("Foto.Casa",)).allowed_hosts() == {
        "localhost", "127.0.0.1", "::1", "192.168.1.7", "foto.casa",
    }  # fmt: skip
    assert read_alias("ViT-B-32__openai") == ("ViT-B-32__openai", 512)
    assert read_alias("altro=768") == ("altro", 768)
    for wrong in ("altro", "altro=", "=9", "altro=-1", "altro=0"):
        with pytest.raises(ClipitaError, match="NAME=WIDTH"):
            read_alias(wrong)


def test_an_alias_that_is_too_narrow_and_a_taken_port_are_refused(tmp_path: Path) -> None:
    import subprocess
    import sys

    def refused(*arguments: str) -> str:
        command = [sys.executable, "-c", "from clipita.cli.main import main; main()", "serve", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done
        return done.stderr

    assert "nothing can be left out" in refused("--alias", "stretto=16")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot be listened at" in refused("--port", str(taken.getsockname()[1]))


def test_searches_of_two_archives_are_ranked_together(tmp_path: Path) -> None:
    import shutil

    folders = [tmp_path / "uno", tmp_path / "due"]
    for folder, names in zip(folders, (["gatto", "razzo"], ["caffe", "astronauta"]), strict=True):
        folder.mkdir()
        for name in names:
            shutil.copy(PHOTO.with_name(f"{name}.jpg"), folder)
    with serving(tmp_path / "log.txt", *folders) as server, httpx.Client(base_url=server.address, timeout=60) as client:
        while {state["phase"] for state in client.get("/api/status").json()["archives"]} != {"ready"}:
            threading.Event().wait(0.05)

        def search(**asked: object) -> list[str]:
            found = client.post("/api/search", json=asked).raise_for_status().json()
            ids.update({photo["name"]: photo["id"] for photo in found["photos"]})
            return [photo["name"] for photo in found["photos"]]

        ids: dict[str, str] = {}
        assert search(text="una tazza di caffè")[0] == "caffe.jpg"
        assert search(text="un gatto")[0] == "gatto.jpg"
        assert search(text="un gatto", archive=1, show_all=True)[0] != "gatto.jpg"
        assert search(photo=ids["gatto.jpg"])[0] == "gatto.jpg"
        assert (
            search(photo=ids["gatto.jpg"], less=[{"photo": ids["gatto.jpg"]}], more=[{"text": "un razzo"}])[0]
            == "razzo.jpg"
        )
        assert search(text="un gatto", since="2030-01-01") == []
        picture = client.get(f"/api/photo/{ids['gatto.jpg']}?size=1")
        assert Image.open(io.BytesIO(picture.content)).size == (451, 300)


def test_small_answers_are_not_held_back_by_the_system() -> None:
    with _listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP  # where it is not, asyncio leaves Nagle's delay on
