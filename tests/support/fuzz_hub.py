"""A hub that answers at random: a model comes of it, or an error of ours, soon, and nothing outside the cache.

`python -m support.fuzz_hub COUNT [SEED]`, in the folder tests,
prints how many models came of it, and what went wrong at which seed.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from support.hub_stand_in import COMMIT, Hub

MAX_SECONDS = 2.0
STATUSES = (200, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 416, 429, 500, 503)
HEADERS = (
    "ETag", "X-Linked-ETag", "X-Repo-Commit", "X-Linked-Size", "Content-Length", "Location", "Content-Encoding",
    "Content-Range", "X-Error-Code", "Retry-After", "Content-Type", "Transfer-Encoding",
)  # fmt: skip
VALUES = (
    "", "..", ".", "../../../victim", "{}/victim", "/etc/passwd", "a/b", "\\", '"', 'W/"', "x" * 300, "x" * 70_000, "é",
    "0", "-1", "1", "99999999999999999999", "1e9", COMMIT, "f" * 64, "0" * 39, "gzip", "br", "chunked", "identity",
    "RepoNotFound", "GatedRepo", "EntryNotFound", "RevisionNotFound", "/", "/prova/a/resolve/main/config.json",
    "file:///etc/passwd", "http://127.0.0.1:9/", "//nowhere.invalid/x", "data:,x", "bytes 5-9/10", "bytes */10",
)  # fmt: skip
FILES: dict[str, Any] = {
    "config.json": {"model_type": "clip"},
    "model.safetensors": "x" * 5000,
    "model.safetensors.index.json": {"weight_map": {"x": "one.safetensors", "y": "two.safetensors"}},
    "one.safetensors": "1" * 100,
    "two.safetensors": "2" * 100,
    "modules.json": [{"path": ""}, {"path": "1_Pooling"}],
    "README.md": "---\nlicense: mit\n---\n",
    "tokenizer.json": {},
}


class OddHub(Hub):
    """Now and then something of an answer is another one's."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.chance = random.Random(0)
        self.home = home

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        try:
            status, headers, body = super().answer(path)
        except ValueError:  # a path that is none of the hub's
            status, headers, body = 200, {}, b""
        chance = self.chance
        if chance.random() < 0.95:
            return status, headers, body
        for _ in range(chance.choice((1, 1, 2, 3))):
            match chance.randrange(4):
                case 0:
                    status = chance.choice(STATUSES)
                case 1:
                    body = body[: chance.randrange(len(body) + 1)] + chance.randbytes(
                        chance.choice((0, 1, 1000, 1 << 20))
                    )
                case _:
                    headers = {**headers, chance.choice(HEADERS): chance.choice(VALUES).format(self.home)}
        return status, {key: value.encode().decode("latin-1") for key, value in headers.items()}, body


def main(count: int, first: int) -> dict[str, Any]:
    root = Path(tempfile.mkdtemp())
    source, home = root / "source", root / "home"
    hub = OddHub(root)
    os.environ |= hub.environment(home, HF_HUB_DOWNLOAD_TIMEOUT="1")
    from clipita.errors import ClipitaError
    from clipita.loading import download as _download
    from clipita.loading.hub import resolve

    _download._PAUSE, _download._WINDOW = 0.001, 1.0
    taken, refused, findings = 0, 0, dict[int, str]()
    try:
        for seed in range(first, first + count):
            shutil.rmtree(source, ignore_errors=True)
            shutil.rmtree(home, ignore_errors=True)
            source.mkdir()
            chance = hub.chance = random.Random(seed)
            for name, content in FILES.items():
                if chance.random() < 0.6:
                    (source / name).write_text(content if isinstance(content, str) else json.dumps(content))
            hub.repositories = {"prova/a": {COMMIT: source}}
            hub.troubles = {name: [chance.choice(("is cut", "is damaged", "fails", *[""] * 9))] for name in FILES}
            start = time.monotonic()
            try:
                folder = resolve("prova/a")
                taken += 1
                if not folder.is_relative_to(home):
                    findings[seed] = f"it is in {folder}"
            except ClipitaError as error:
                refused += 1
                if "could not be reached (" in str(error) and "Error" in str(error).partition("reached (")[2][:20]:
                    findings[seed] = str(error)
            except BaseException as error:
                findings[seed] = f"{type(error).__name__}: {error}"
            if time.monotonic() - start > MAX_SECONDS:
                findings[seed] = f"it took {time.monotonic() - start:.1f} s"
            if strange := sorted(path.name for path in root.iterdir() if path not in (source, home)):
                findings[seed] = f"it wrote {strange}"
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        shutil.rmtree(root)
    return {"taken": taken, "refused": refused, "findings": findings}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)))
