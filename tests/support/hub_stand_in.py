"""A hub on this machine, that answers as huggingface.co does."""

import contextlib
import hashlib
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789" * 4
LARGE = (".safetensors", ".bin", ".msgpack", ".onnx")


class Hub:
    """Serves folders as repositories, the way huggingface.co answers a download, or as it does on a bad day."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Path]] = {}  # name -> branch or commit -> folder
        self.heads = {"main": COMMIT}
        self.requests: list[str] = []
        self.troubles: dict[str, list[str]] = {}  # end of a path -> what goes wrong with its next downloads
        self.headers: dict[str, dict[str, str]] = {}  # end of a path -> what is said of it instead
        self.sent = 0  # without an end
        self.ranges = False  # whether a part of a file can be asked for
        self.asked_ranges: list[str] = []
        self.agents: list[str] = []
        self.token: str | None = None  # what repositories of "private" are shown for
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                stand_in.requests.append(f"{self.command} {self.path}")
                stand_in.agents.append(str(self.headers["User-Agent"]))
                path = self.path.removeprefix("http://hub.invalid")  # as a proxy is asked
                if path.startswith("/private/") and self.headers["Authorization"] != f"Bearer {stand_in.token}":
                    status, headers, body = 401, {"X-Error-Code": "RepoNotFound"}, b""
                else:
                    status, headers, body = stand_in.answer(path)
                trouble = ""
                for end, troubles in stand_in.troubles.items():
                    if self.command == "GET" and path.endswith(end) and troubles:
                        trouble = troubles.pop(0)
                if trouble == "fails":
                    status, body = 503, b""
                elif trouble == "lies about its size":
                    body = body[: len(body) // 2]
                elif trouble == "is damaged":
                    body = body[:-1] + bytes([body[-1] ^ 1])
                if stand_in.ranges and "Range" in self.headers and status == 200:
                    stand_in.asked_ranges.append(self.headers["Range"])
                    status, body = 206, body[int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) :]
                for end, said in stand_in.headers.items():
                    if path.endswith(end):
                        headers = {**headers, **said}
                self.send_response(status)
                length = {} if trouble in ("never ends", "dribbles") else {"Content-Length": str(len(body))}
                for key, value in {**headers, **length}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "GET":
                    if trouble == "is cut":
                        body = body[: len(body) // 2]
                        self.close_connection = True
                    elif trouble == "stalls":
                        self.wfile.write(body[:100])
                        time.sleep(2)
                        self.close_connection = True
                        return
                    elif trouble in ("never ends", "dribbles"):
                        stand_in.go_on(self, 1 << 16 if trouble == "never ends" else 1)
                        return
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def go_on(self, request: BaseHTTPRequestHandler, size: int) -> None:
        """Send for as long as somebody listens, all at once or a byte now and then."""
        request.close_connection = True
        with contextlib.suppress(OSError):
            while True:
                self.sent += request.wfile.write(bytes(size))
                time.sleep(0 if size > 1 else 0.1)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if path.startswith("/api/models/"):
            return self._listing(path)
        if path.startswith("/api/"):  # telemetry
            return 404, {}, b""
        owner, name, _, revision, file = path.strip("/").split("/", 4)
        if owner == "gated":
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if owner == "broken":
            return 500, {}, b""
        folders = self.repositories.get(f"{owner}/{name}")
        if folders is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        commit = self.heads.get(revision, revision)
        if commit not in folders:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        target = folders[commit] / file
        if not target.is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        body = target.read_bytes()
        # As git names small files, and its extension for large ones (here from a few bytes on) those.
        etag = hashlib.sha256(body) if file.endswith(LARGE) else hashlib.sha1(b"blob %d\0" % len(body) + body)
        return 200, {"X-Repo-Commit": commit, "ETag": f'"{etag.hexdigest()}"'}, body

    def _listing(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """What a repository holds, as who takes all of it asks: /revision/NAME, then /tree/COMMIT."""
        owner, name, kind, revision = path.partition("?")[0].removeprefix("/api/models/").split("/")
        folders = self.repositories.get(f"{owner}/{name}")
        commit = self.heads.get(revision, revision)
        if folders is None or commit not in folders:
            return 404, {"X-Error-Code": "RepoNotFound" if folders is None else "RevisionNotFound"}, b""
        files = sorted(folders[commit].iterdir())
        tree = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40} for f in files]
        about = {"id": f"{owner}/{name}", "sha": commit, "siblings": [{"rfilename": file.name} for file in files]}
        body = json.dumps(tree if kind == "tree" else about).encode()
        return 200, {"Content-Type": "application/json"}, body

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Of a process that takes this for the hub, and keeps its files below `home`."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        return {**clean, "HF_ENDPOINT": self.address, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", **more}
