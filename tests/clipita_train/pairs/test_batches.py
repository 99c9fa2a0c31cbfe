import json
from pathlib import Path

import numpy as np
import pytest
from clipita_train.data.pairs.rows import Row
from clipita_train.data.shards import Record, write_shards
from clipita_train.pairs.batches import RowMaker, UnreadableLog, training_batches, validation_batches
from clipita_train.pairs.files import ListedPairs, Pair, open_pairs, split_pairs
from clipita_train.pairs.recipe import PairSource
from clipita_train.pairs.run import PairRun, _larger
from support.pair_toy import CONFIG, toy_recipe, write_toy

from clipita.errors import ClipitaError


def listed(count: int, source: str = "uno") -> ListedPairs:
    captions = ("una nave a destra", "una barca")
    rows = (Row(source, str(n), Path(f"{source}-{n}.jpg"), captions, "it", "") for n in range(count))
    return ListedPairs(rows, Path(), lambda *_: pytest.fail("nothing is broken"))


def make_rows(*, validates: bool = False, may_flip: bool = False, broken: tuple[str, ...] = (), named=None) -> RowMaker:
    from clipita.errors import ImageError

    def image(number: int, pair: Pair) -> dict:
        if pair.key in broken:
            raise ImageError(f"{pair.key} is truncated")
        return {"pixels": np.full((2, 2, 3), number, np.uint8)}

    def text(caption: str) -> dict:
        return {"input_ids": np.arange(len(caption)), "attention_mask": np.ones(len(caption), np.int64)}

    tell = (lambda place, _: named.append(place)) if named is not None else (lambda *_: None)
    return RowMaker(image, text, tell, seed=0, validates=validates, may_flip=may_flip)


def stream(sources, *, weights=None, rows=None, **changes):
    parts = split_pairs(sources, [0.0] * len(sources))[0]
    options = {"batch_size": 4, "lengths": (12, 20), "seed": 3, "stage": 0, "threads": 0, **changes}
    return training_batches(parts, weights or [1.0] * len(sources), rows or make_rows(), **options)


def take(batches, count: int) -> list:
    return [next(batches) for _ in range(count)]


def same(one, other) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_an_epoch_sees_every_pair_once_and_the_next_in_another_order_and_view():
    batches = stream([listed(8)])
    assert len(batches) == 2
    first, second = (np.concatenate([b["number"] for b in take(batches, 2)]) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(8))
    assert list(first) != list(second)
    third = next(batches)
    assert set(third["view"]) == {2}
    assert third["ids"][0] == f"uno: {third['number'][0]}"
    other_stage = next(stream([listed(8)], stage=1))
    assert set(other_stage["view"]) == {1 << 20}
    assert list(other_stage["number"]) != list(first[:4])


def test_captions_are_drawn_anew_and_flips_are_barred_by_sides():
    batch = next(stream([listed(64)], rows=make_rows(may_flip=True), batch_size=64))
    is_long = batch["attention_mask"].sum(1) == len("una nave a destra")
    assert 16 < is_long.sum() < 48
    np.testing.assert_array_equal(batch["may_flip"], ~is_long)


def test_texts_are_padded_to_the_shortest_length_that_holds_them():
    shapes = {len(next(stream([listed(8)], batch_size=1, seed=seed))["input_ids"][0]) for seed in range(8)}
    assert shapes == {12, 20}


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(threads):
    broken = ("uno: 2", "uno: 5")
    rows = make_rows(broken=broken)
    same(take(stream([listed(9), listed(5, "due")], rows=rows, threads=threads), 12), take(
        stream([listed(9), listed(5, "due")], rows=rows), 12
    ))  # fmt: skip


@pytest.mark.parametrize("threads", [(0, 2), (2, 0)])
def test_a_stream_goes_on_from_its_state_with_another_number_of_threads(threads):
    rows = make_rows(broken=("uno: 2",))
    whole = take(stream([listed(9)], rows=rows), 9)
    begun = stream([listed(9)], rows=rows, threads=threads[0])
    take(begun, 4)
    state = json.loads(json.dumps(begun.get_state()))
    again = stream([listed(9)], rows=rows, threads=threads[1])
    again.set_state(state)
    same(take(again, 5), whole[4:])


@pytest.mark.slow
def test_sources_are_mixed_by_weight():
    numbers = np.concatenate([b["number"] for b in take(stream([listed(30), listed(10, "due")], weights=[1, 6]), 100)])
    assert np.mean(numbers >= 30) == pytest.approx(2 / 3, abs=0.02)
    assert set(numbers) == set(range(40))


def test_processes_have_parts_of_the_same_batches():
    whole = take(stream([listed(16)]), 6)
    parts = [take(stream([listed(16)], process=(index, 2)), 6) for index in range(2)]
    for batch, *halves in zip(whole, *parts, strict=True):
        assert all(len(half["number"]) == 2 for half in halves)
        assert set(batch["number"]) == {n for half in halves for n in half["number"]}
    with pytest.raises(ValueError, match="a batch of 4 does not divide by 3 processes"):
        stream([listed(16)], process=(0, 3))


def validate(sources, rows, **changes):
    parts = split_pairs(sources, [1.0] * len(sources))[1]
    return list(validation_batches(parts, rows, **{"batch_size": 4, "lengths": (20,), "threads": 0, **changes}))


def test_validation_sees_everything_once_the_rest_masked():
    named: list[str] = []
    rows = make_rows(validates=True, broken=("uno: 1",), named=named)
    batches = validate([listed(6), listed(3, "due")], rows)
    assert [list(batch["mask"]) for batch in batches] == [
        [True, False, True, True],
        [True] * 4,
        [True, False, False, False],
    ]
    assert named == ["uno: 1"]
    seen = [n for batch in batches for n in batch["number"][batch["mask"]]]
    assert seen == [0, 2, 3, 4, 5, 6, 7, 8]
    assert all((batch["attention_mask"].sum(1) > 0).all() for batch in batches)
    assert {int(mask.sum()) for batch in batches for mask in batch["attention_mask"][batch["mask"]]} == {
        17
    }  # the first
    same(batches, validate([listed(6), listed(3, "due")], rows, threads=2))
    halves = [validate([listed(6), listed(3, "due")], rows, process=(index, 2)) for index in range(2)]
    assert [len(half) for half in halves] == [3, 3]
    assert sorted(n for half in halves for b in half for n in b["number"][b["mask"]]) == seen


def test_a_photograph_is_on_one_side_only():
    rows = [Row("uno", str(n), Path(f"{n % 50}.jpg"), ("a",), "it", "") for n in range(150)]
    pairs = ListedPairs(rows, Path(), lambda *_: None)
    train, validation = split_pairs([pairs], [0.2])
    sides = [{pair.image for _, pair in (part[i] for i in range(len(part)))} for part in (train[0], validation[0])]
    assert len(train[0]) + len(validation[0]) == 150
    assert not sides[0] & sides[1]
    assert 3 <= len(sides[1]) <= 20


def test_what_is_left_out_is_named_once_and_too_much_is_an_error(tmp_path):
    told: list[str] = []
    left_out = UnreadableLog(tmp_path / "left-out.txt", told.append)
    left_out.allow(100)
    for _ in range(2):
        for number in range(20):
            left_out(f"uno: {number}", "truncated\nbadly")
    assert len(told) == 20
    lines = (tmp_path / "left-out.txt").read_text().splitlines()
    assert lines[0] == "uno: 0\ttruncated badly"
    again = UnreadableLog(tmp_path / "left-out.txt", told.append)
    again("uno: 0", "truncated\nbadly")
    assert len(told) == 20
    with pytest.raises(ValueError, match=r"21 pairs cannot be read.*left-out\.txt"):
        left_out("uno: 20", "truncated")


@pytest.mark.slow
def test_broken_lists_and_photographs_are_named_and_the_rest_is_read(tmp_path):
    folder = write_toy(tmp_path, 40)
    lines = (folder / "pairs.jsonl").read_text().splitlines()
    lines[3] = lines[3][:20]
    lines[4] = json.dumps({"image_path": "nowhere.png", "captions": ["un cane"]})
    long = "parola " * 10_000
    lines[5] = json.dumps({"image_path": "5.png", "captions": [long]})
    lines[6] = json.dumps({"image_path": "6.png", "captions": ["\u200b"]})
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    whole = (folder / "photographs" / "7.png").read_bytes()
    (folder / "photographs" / "7.png").write_bytes(whole[: len(whole) // 2])
    run = PairRun(toy_recipe(folder, source={"validation": "pairs.jsonl"}), tmp_path / "out")
    batches = list(run.make_batches(run.recipe.train.stages[1], "validation"))
    read = np.concatenate([batch["ids"][batch["mask"]] for batch in batches])
    assert len(read) == 36
    long_row = next(batch["attention_mask"][list(batch["ids"]).index("toy: pairs.jsonl:6")] for batch in batches
                    if "toy: pairs.jsonl:6" in batch["ids"])  # fmt: skip
    assert long_row.sum() == CONFIG.text.positions
    named = (tmp_path / "out" / "left-out.txt").read_text()
    assert "toy: pairs.jsonl:4\tnot a JSON object with image_path and captions\n" in named
    assert "toy: pairs.jsonl:5\tthe image is missing\n" in named
    assert "toy: pairs.jsonl:7\ttexts[0] is " in named
    assert "toy: pairs.jsonl:8\ttoy: pairs.jsonl:8 is truncated" in named
    assert len(named.splitlines()) == 4
    trained = {
        name for batch in take(run.make_batches(run.recipe.train.stages[1], "train"), 6) for name in batch["ids"]
    }
    assert not trained & {f"toy: pairs.jsonl:{line}" for line in (4, 5, 7, 8)}


def write_toy_shards(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    images = [(folder / "photographs" / line["image_path"]).read_bytes() for line in lines]
    records = [
        Record(f"toy/{n}", image, tuple(line["captions"]))
        for n, (line, image) in enumerate(zip(lines, images, strict=True))
    ]
    write_shards(records, folder / "shards", size=16)


def test_shards_hold_the_same_pairs_and_one_cut_in_half_is_refused(tmp_path):
    folder = write_toy(tmp_path, 40)
    write_toy_shards(folder)
    source = PairSource("toy", "shards", "shards")
    pairs = open_pairs(source, folder, lambda *_: None)
    listed = open_pairs(PairSource("toy", "pairs.jsonl", images="photographs"), folder, lambda *_: None)
    assert len(pairs) == len(listed) == 40
    for number in (0, 17, 39):
        assert pairs[number].captions == listed[number].captions
        assert pairs[number].image == listed[number].image.read_bytes()
    recipe = toy_recipe(folder, source={"format": "shards", "path": "shards"})
    batch = next(PairRun(recipe, tmp_path / "out").make_batches(recipe.train.stages[1], "train"))
    assert batch["pixels"].shape == (16, 24, 24, 3)
    shard = folder / "shards" / "shard-00001.arrayrecord"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(ClipitaError, match=r"shard-00001\.arrayrecord has .* bytes instead of"):
        PairRun(recipe, tmp_path / "out")


@pytest.mark.slow
def test_lists_that_are_not_there_are_named(tmp_path):
    folder = write_toy(tmp_path, 4)
    for source, message in (
        ({"path": "pair.jsonl"}, r"source 'toy': its path '.*/pair\.jsonl' is not there; see data\.root"),
        ({"images": "fotografie"}, "its images '.*/fotografie' is not there"),
        ({"validation": "val.jsonl"}, r"its path '.*/val\.jsonl' is not there"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            PairRun(toy_recipe(folder, source=source), tmp_path / "out")
    (folder / "pairs.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="source 'toy' has no pair that can be read"):
        PairRun(toy_recipe(folder), tmp_path / "out")


def test_augmentation_crops_from_a_larger_picture_of_the_same():
    larger = _larger(CONFIG.preprocessing, 8)
    assert (larger.image_size, larger.short_side, larger.mean) == (32, None, CONFIG.preprocessing.mean)
