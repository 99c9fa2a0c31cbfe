"""Calibrating "nothing found": on vectors whose answer is known it finds weights that tell present from absent."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from clipita_train.cli import main
from clipita_train.evaluate import presence
from clipita_train.evaluate.presence import Query, calibrate, markdown, read_queries
from support.tiny_bundle import WORDS

import clipita
from clipita.images.photo_files import Stamp
from clipita.search.embedding_file import Embeddings, write_embeddings


def test_the_queries_are_whole() -> None:
    queries = read_queries()
    assert {query.kind for query in queries} == {"put_in", "shown", "complete", "there", "absent"}
    assert all(bool(query.photographs) == (query.kind in ("put_in", "shown", "complete")) for query in queries)
    assert len({query.text for query in queries if query.kind != "there"}) > 300
    for query in queries:
        everyday = [name.startswith(presence.EVERYDAY) for name in query.photographs]
        assert all(everyday) if query.kind in ("shown", "complete") else not any(everyday)


@pytest.fixture
def archive(tmp_path: Path, shared_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Vectors of photographs: everyday ones of chance, and for each word some that are near to it."""
    model = clipita.load(shared_bundle)
    random = np.random.default_rng(0)
    keys = [f"{presence.EVERYDAY}{number}.jpg" for number in range(300)]
    vectors = [random.standard_normal((300, model.embed_dim))]
    words = WORDS[4:]
    for word in words:
        keys += [f"altre/{word}{number}.jpg" for number in range(3)]
        vectors.append(model.encode_text(word) + 0.05 * random.standard_normal((3, model.embed_dim)))
    whole = np.concatenate(vectors).astype(np.float32)
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    write_embeddings(
        tmp_path / "tutte.npz", Embeddings(keys, whole, model.fingerprint, "tiny", [Stamp(1, 1)] * len(keys))
    )
    queries = [Query(word, "put_in", tuple(f"altre/{word}{number}.jpg" for number in range(3))) for word in words]
    monkeypatch.setattr(presence, "read_queries", lambda: queries)
    return tmp_path / "tutte.npz"


@pytest.mark.filterwarnings("ignore:.*are longer than .* tokens")
def test_what_is_there_is_told_from_what_is_not(archive: Path, shared_bundle: Path) -> None:
    model = clipita.load(shared_bundle)
    found, errors = calibrate(model, [model.fingerprint], archive)
    assert errors["presence"]["all"].area > 0.99
    assert errors["presence"]["all"].lost <= 0.06
    assert errors["presence"]["all"].refused > 0.95
    assert errors["cosine"]["words"].count == 2 * len(presence.SIZES) * presence.REPEATS * len(presence.read_queries())
    assert "| all | presence | " in markdown(errors)
    vector = model.encode_text("cane")
    assert found.is_there(vector, 1.0, vector, 100)
    assert not found.is_there(vector, -0.2, model.encode_text("mare"), 100)


@pytest.mark.filterwarnings("ignore:.*are longer than .* tokens")
def test_the_command_writes_what_search_reads(archive: Path, shared_bundle: Path, tmp_path: Path) -> None:
    arguments = ["--model", shared_bundle, "--embeddings", archive, "--write", tmp_path / "p.npz"]
    result = CliRunner().invoke(main, ["evaluate", "presence", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert "| all | presence | " in result.output
    with (
        np.load(tmp_path / "p.npz") as written,
        np.load(resources.files("clipita.search") / "background/clipita-mini.npz") as shipped,
    ):
        assert {name: written[name].dtype for name in written if name != "fingerprints"} == {
            name: shipped[name].dtype for name in shipped if name != "fingerprints"
        }
        assert clipita.load(shared_bundle).fingerprint in written["fingerprints"].tolist()


def test_photographs_that_are_missing_are_named(tmp_path: Path, shared_bundle: Path) -> None:
    model = clipita.load(shared_bundle)
    vectors = np.zeros((1, model.embed_dim), np.float32)
    write_embeddings(tmp_path / "una.npz", Embeddings(["a.jpg"], vectors, model.fingerprint, "tiny", [Stamp(1, 1)]))
    with pytest.raises(ValueError, match=r"lacks [\d,]+ photographs, the first of which is '"):
        calibrate(model, [model.fingerprint], tmp_path / "una.npz")
