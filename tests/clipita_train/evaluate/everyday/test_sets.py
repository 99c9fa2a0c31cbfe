"""The tables of the everyday development sets are whole, and their photographs are found or asked for."""

from collections import Counter
from pathlib import Path

import pytest
from clipita_train.data.near_duplicates.perceptual_hash import near_hashes
from clipita_train.data.photographs.collections import COLLECTIONS
from clipita_train.evaluate.everyday.sets import (
    ARCHIVE,
    SENTENCES,
    SETS,
    SMALL,
    everyday_sets,
    files,
    kept_out_hashes,
    kept_out_repositories,
)


def test_each_photograph_is_in_a_set_and_none_twice() -> None:
    photographs = everyday_sets().photographs
    assert len({photo.id for photo in photographs}) == len(photographs)
    assert len({(photo.repository, photo.path) for photo in photographs}) == len(photographs)
    assert all(photo.sets and set(photo.sets) <= set(SETS) for photo in photographs)
    assert not len(near_hashes(kept_out_hashes()))


def test_the_sets_are_as_large_as_they_are_said_to_be() -> None:
    count = Counter(name for photo in everyday_sets().photographs for name in photo.sets)
    assert count[ARCHIVE] >= 400
    assert count[SENTENCES] >= 300
    assert all(count[name] >= 60 for name in SMALL)
    both = [photo for photo in everyday_sets().photographs if {ARCHIVE, SENTENCES} <= set(photo.sets)]
    assert len(both) <= 150
    from_each = Counter(photo.repository for photo in everyday_sets().photographs if ARCHIVE in photo.sets)
    assert len(from_each) >= 12
    assert max(from_each.values()) <= 60


def test_labels_are_of_photographs_of_their_set() -> None:
    of = {photo.id: photo.sets for photo in everyday_sets().photographs}
    labels = everyday_sets().labels
    assert len({(labeled.set, labeled.id) for labeled in labels}) == len(labels)
    for name in (ARCHIVE, *SMALL):
        words = {labeled.label for labeled in labels if labeled.set == name}
        assert len(words) >= 8
        assert all(set(labeled.also) <= words - {labeled.label} for labeled in labels if labeled.set == name)
    assert all(labeled.set in of[labeled.id] for labeled in labels)


def test_queries_name_photographs_of_the_archive_and_no_two_are_the_same() -> None:
    archive = {photo.id for photo in everyday_sets().photographs if ARCHIVE in photo.sets}
    queries = everyday_sets().queries
    assert len({query.text for query in queries}) == len(queries)
    assert sum(bool(query.relevant) for query in queries) >= 100
    assert sum(not query.relevant for query in queries) >= 40
    for query in queries:
        named = [*query.relevant, *query.acceptable]
        assert len(set(named)) == len(named)
        assert set(named) <= archive
        assert query.relevant or not query.acceptable


def test_sentences_tell_their_photographs_apart() -> None:
    with_sentences = {photo.id for photo in everyday_sets().photographs if SENTENCES in photo.sets}
    sentences = everyday_sets().sentences
    assert set(sentences) == with_sentences
    assert len(set(sentences.values())) == len(sentences)
    assert all(len(sentence.split()) >= 3 for sentence in sentences.values())


def test_no_collection_that_is_trained_on_is_kept_out() -> None:
    trained = {name for collection in COLLECTIONS for name in (collection.repository, *collection.further)}
    assert not trained & kept_out_repositories()


def test_clones_that_are_missing_are_named_with_the_commands_that_get_them(tmp_path: Path) -> None:
    first, *others = everyday_sets().photographs
    with pytest.raises(FileNotFoundError, match=r"photographs of 1 repositories are missing") as raised:
        files([first], tmp_path)
    assert f"git clone https://github.com/{first.repository} {tmp_path / first.repository}" in str(raised.value)
    assert f"git -C {tmp_path / first.repository} checkout {first.commit}" in str(raised.value)
    place = tmp_path / first.repository / first.path
    place.parent.mkdir(parents=True)
    place.touch()
    assert files([first], tmp_path) == {first.id: place}
    elsewhere = next(photo for photo in others if photo.repository != first.repository)
    assert files([first, elsewhere], tmp_path, without=[elsewhere.repository]) == {first.id: place}
    with pytest.raises(ValueError, match=r"no photographs are from chi/sa"):
        files([first], tmp_path, without=["chi/sa"])
