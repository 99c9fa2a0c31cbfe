"""Programs that ask as Immich's server and as clients of OpenAI's embeddings do get the library's own vectors."""

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support import ROOT
from support.reference import httpx  # type: ignore[attr-defined]
from support.reference import starlette as _starlette  # type: ignore[attr-defined] # noqa: F401
from support.server import Server, serving

import clipita

pytestmark = pytest.mark.slow

PHOTOS = ROOT / "examples" / "photos"
ALIAS, WIDTH = "XLM-Roberta-Base-ViT-B-32__laion5b_s13b_b90k", 512


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    arguments = ("--alias", ALIAS, "--alias", "altro=300")
    with serving(tmp_path_factory.mktemp("log") / "log.txt", *arguments) as running:
        yield running


@pytest.fixture(scope="module")
def model() -> clipita.Model:
    return clipita.load()


class ImmichServer:
    """Asks as Immich's server does: looks whether the service is there, embeds its library, then a search's text."""

    def __init__(self, address: str) -> None:
        self.client = httpx.Client(base_url=address, timeout=60)

    def close(self) -> None:
        self.client.close()

    def is_there(self) -> bool:
        return self.client.get("/ping").text == "pong"

    def of_photo(self, path: Path) -> dict[str, object]:
        entries = json.dumps({"clip": {"visual": {"modelName": ALIAS}}})
        answer = self.client.post("/predict", data={"entries": entries}, files={"image": path.read_bytes()})
        return answer.raise_for_status().json()

    def of_text(self, text: str) -> dict[str, object]:
        entries = json.dumps({"clip": {"textual": {"modelName": ALIAS, "options": {"language": "it"}}}})
        answer = self.client.post("/predict", files={"entries": (None, entries), "text": (None, text)})
        return answer.raise_for_status().json()


def test_immich_embeds_its_library_and_finds_a_photograph(server: Server, model: clipita.Model) -> None:
    with contextlib.closing(ImmichServer(server.address)) as immich:
        _find_the_cup(immich, model)


def _find_the_cup(immich: ImmichServer, model: clipita.Model) -> None:
    assert immich.is_there()
    assert immich.client.get("/").json() == {"message": "Immich ML"}
    rows: dict[str, np.ndarray] = {}
    for path in sorted(PHOTOS.glob("*.jpg")):
        found = immich.of_photo(path)
        assert isinstance(found["clip"], str)  # a text of JSON, as its database takes it
        rows[path.name] = np.array(json.loads(found["clip"]), np.float32)
        assert rows[path.name].shape == (WIDTH,)
        np.testing.assert_allclose(rows[path.name][:256], model.encode_image(path), atol=1e-5)
        assert not rows[path.name][256:].any()
    assert (immich.of_photo(PHOTOS / "gatto.jpg")["imageWidth"], found["imageHeight"]) == (451, 427)
    asked = np.array(json.loads(str(immich.of_text("una tazza di caffè")["clip"])), np.float32)
    assert max(rows, key=lambda name: float(rows[name] @ asked)) == "caffe.jpg"
    np.testing.assert_allclose(asked[:256], model.encode_text("una tazza di caffè"), atol=1e-3)


def test_clients_of_openai_get_texts_and_pictures(server: Server, model: clipita.Model) -> None:
    photo = "data:image/jpeg;base64," + base64.b64encode((PHOTOS / "gatto.jpg").read_bytes()).decode()
    body = {"model": "clipita-mini", "input": ["un gatto", photo, {"image": photo}, {"image_url": {"url": photo}}]}
    with httpx.Client(base_url=server.address, timeout=60) as client:
        answer = client.post("/v1/embeddings", json=body).raise_for_status().json()
        rows = np.array([item["embedding"] for item in answer["data"]], np.float32)
        assert [item["index"] for item in answer["data"]] == [0, 1, 2, 3]
        assert answer["object"] == "list"
        assert answer["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
        np.testing.assert_allclose(rows[0], model.encode_text("un gatto"), atol=1e-3)
        for row in rows[1:]:
            np.testing.assert_allclose(row, model.encode_image(PHOTOS / "gatto.jpg"), atol=1e-5)
        packed = client.post("/v1/embeddings", json={**body, "encoding_format": "base64", "input": "un gatto"}).json()
        row = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4")
        np.testing.assert_allclose(row, rows[0], atol=1e-3)
        padded = client.post("/v1/embeddings", json={"model": "altro", "input": "un gatto"}).json()
        assert len(padded["data"][0]["embedding"]) == 300
        names = [item["id"] for item in client.get("/v1/models").json()["data"]]
        assert names == ["clipita-mini", ALIAS, "altro"]
        wrong = client.post("/v1/embeddings", json={"model": "gpt", "input": "x"})
        assert wrong.status_code == 404
        assert set(wrong.json()["error"]) == {"message", "type", "param", "code"}


def test_labels_and_places_are_the_librarys(server: Server, model: clipita.Model) -> None:
    labels = ["gatto", "cane", "una tazza di caffè"]
    files = {"image": (PHOTOS / "gatto.jpg").read_bytes()}
    with httpx.Client(base_url=server.address, timeout=60) as client:
        found = client.post("/api/label", data={"labels": json.dumps(labels)}, files=files).json()
        expected = model.zero_shot(PHOTOS / "gatto.jpg", labels)
        assert [item["label"] for item in found["scores"]] == [label for label, _ in expected]
        assert found["scores"][0]["score"] == pytest.approx(expected[0].score, abs=1e-3)
        assert found["none"] is False
        files = {"image": (PHOTOS / "razzo.jpg").read_bytes()}
        assert client.post("/api/label", data={"labels": json.dumps(labels)}, files=files).json()["none"] is True
        (place,) = client.post("/api/where", data={"texts": '["il razzo"]'}, files=files).json()["places"]
        location = model.locate(PHOTOS / "razzo.jpg", "il razzo")
        assert place["peak"] == pytest.approx(location.peak, abs=1e-3)
        heat = np.array(place["heat"]).reshape(place["rows"], place["columns"])
        np.testing.assert_array_equal(heat < 0, np.isnan(location.map))
        assert heat.max() == 255
