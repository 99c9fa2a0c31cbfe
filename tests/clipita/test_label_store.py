"""The vectors of labels on disk: what is embedded again, and what is not."""

import os
from pathlib import Path

import numpy as np
import pytest

from clipita import load
from clipita.label_store import FEW, MAX_FILE, MAX_FILES, LabelStore

LABELS = [f"gatto {number}" for number in range(FEW + 8)]


class Embedder:
    """Counts what it embeds; each text has a vector of its own."""

    def __init__(self, width: int = 4) -> None:
        self.width = width
        self.texts: list[str] = []

    def __call__(self, phrases: list[str]) -> np.ndarray:
        self.texts += phrases
        return np.array([[len(text), hash(text) % 1000, *[0.1] * (self.width - 2)] for text in phrases], np.float32)


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(lambda: tmp_path / "home", "model", 4)


def test_only_what_was_never_embedded_is(store: LabelStore, tmp_path: Path) -> None:
    embed = Embedder()
    first = store.vectors(LABELS, ["{}"], embed)
    np.testing.assert_array_equal(first, Embedder()(LABELS))
    again = LabelStore(lambda: tmp_path / "home", "model", 4)
    np.testing.assert_array_equal(again.vectors(LABELS[::-1], ["{}"], embed), first[::-1])
    assert embed.texts == LABELS
    more = again.vectors([*LABELS, "un cane"], ["{}"], embed)
    np.testing.assert_array_equal(more, Embedder()([*LABELS, "un cane"]))
    assert embed.texts == [*LABELS, "un cane"]


def test_other_templates_and_other_models_have_other_vectors(store: LabelStore, tmp_path: Path) -> None:
    embed = Embedder()
    store.vectors(LABELS, ["{}"], embed)
    store.vectors(LABELS, ["una foto di {}"], embed)
    LabelStore(lambda: tmp_path / "home", "another", 4).vectors(LABELS, ["{}"], embed)
    assert embed.texts == LABELS * 3


def test_few_labels_make_no_file(store: LabelStore, tmp_path: Path) -> None:
    store.vectors(LABELS[:FEW], ["{}"], Embedder())
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("damage", ["cut", "changed", "grown", "of another width", "empty", "a folder"])
def test_a_damaged_file_counts_as_empty_and_is_written_anew(store: LabelStore, tmp_path: Path, damage: str) -> None:
    embed = Embedder()
    first = store.vectors(LABELS, ["{}"], embed)
    path = tmp_path / "home" / "model.labels"
    data = bytearray(path.read_bytes())
    match damage:
        case "cut":
            del data[-32:]
        case "changed":
            data[-1] ^= 1
        case "grown":
            data += bytes(MAX_FILE)
        case "of another width":
            wide = LabelStore(lambda: tmp_path / "home", "model", 5)
            wide.vectors(LABELS[: FEW + 1], ["{}"], Embedder(5))
            data = bytearray(path.read_bytes())
        case _:
            data.clear()
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(data)
    np.testing.assert_array_equal(store.vectors(LABELS, ["{}"], embed), first)
    assert embed.texts == LABELS * 2
    store.vectors(LABELS, ["{}"], embed)
    assert embed.texts == LABELS * (3 if damage == "a folder" else 2)  # a folder stays, and nothing is kept


def test_a_home_that_is_a_file_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    store = LabelStore(lambda: tmp_path / "home" / "labels", "model", 4)
    np.testing.assert_array_equal(store.vectors(LABELS, ["{}"], Embedder()), Embedder()(LABELS))


def test_the_file_keeps_the_labels_used_last(
    store: LabelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipita.label_store.MAX_FILE", 50 * (16 + 4 * 4))  # 50 rows
    embed = Embedder()
    store.vectors(LABELS, ["{}"], embed)
    others = [f"cane {number}" for number in range(FEW + 8)]
    store.vectors(others, ["{}"], embed)
    assert (tmp_path / "home" / "model.labels").stat().st_size == 32 + 50 * 32
    store.vectors(others, ["{}"], embed)
    assert len(embed.texts) == 2 * len(LABELS)


def test_only_the_files_of_a_few_models_are_kept(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 2):
        LabelStore(lambda: tmp_path, f"model-{number}", 4).vectors(LABELS, ["{}"], Embedder())
        os.utime(tmp_path / f"model-{number}.labels", (number, number))
    assert len(list(tmp_path.iterdir())) == MAX_FILES
    assert (tmp_path / f"model-{MAX_FILES + 1}.labels").exists()


def test_a_model_embeds_its_labels_once_on_a_machine(shared_bundle: Path, tmp_path: Path) -> None:
    first = load(shared_bundle, cache_dir=tmp_path).label_bank(LABELS)
    (path,) = (tmp_path / "clipita" / ".labels").iterdir()
    other = load(shared_bundle, cache_dir=tmp_path)
    other._backend = None  # type: ignore[assignment]  # nothing may be embedded any more
    np.testing.assert_array_equal(other.label_bank(LABELS).embeddings, first.embeddings)
    assert not any(label.encode() in path.read_bytes() for label in LABELS)
