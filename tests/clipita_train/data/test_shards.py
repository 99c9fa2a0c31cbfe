"""What is written is read, in any order, by threads and processes; what is damaged is named."""

import json
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clipita_train.data.shards import Record, Shard, ShardError, ShardReader, write_index, write_shard, write_shards
from clipita_train.engine.files import PARTIAL, remove_partial, written_whole
from support import PHOTOS

PHOTO = PHOTOS / "gatto.jpg"
RECORDS = [
    Record(f"prova/{number}", PHOTO.read_bytes() + bytes([number]), (f"la foto {number}", "perché no?"))
    for number in range(10)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shards(iter(RECORDS), tmp_path / "train", size=4)
    return tmp_path / "train"


def test_records_come_back_by_number(folder: Path) -> None:
    reader = ShardReader(folder)
    assert [shard.records for shard in reader.shards] == [4, 4, 2]
    assert len(reader) == 10
    assert list(reader) == RECORDS
    assert [reader[number] for number in (9, 0, 5, -1)] == [RECORDS[number] for number in (9, 0, 5, -1)]
    for number in (10, -11):
        with pytest.raises(IndexError, match=f"record {number} of 10"):
            reader[number]


def test_the_same_records_make_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_shards(RECORDS, tmp_path / "again", size=4)
    files = [sorted(path for path in place.iterdir()) for place in (folder, tmp_path / "again")]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def test_a_set_may_be_empty(tmp_path: Path) -> None:
    write_shards([], tmp_path)
    assert list(ShardReader(tmp_path)) == []


def _read(reader: ShardReader, number: int) -> Record:
    return reader[number]


def test_threads_share_a_reader_and_processes_get_their_own(folder: Path) -> None:
    reader = ShardReader(folder)
    order = [number % 10 for number in range(0, 700, 7)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(reader.__getitem__, order)) == [RECORDS[number] for number in order]
    assert list(pickle.loads(pickle.dumps(reader))) == RECORDS
    with multiprocessing.get_context("spawn").Pool(1) as processes:
        assert processes.apply(_read, (reader, 6)) == RECORDS[6]


def test_a_shard_cut_in_half_is_named_at_once(folder: Path) -> None:
    path = folder / "shard-00001.arrayrecord"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2])
    with pytest.raises(ShardError, match=rf"shard-00001.arrayrecord has {size // 2:,} bytes instead of {size:,}"):
        ShardReader(folder)
    path.unlink()
    with pytest.raises(ShardError, match=r"shard-00001\.arrayrecord is missing"):
        ShardReader(folder)


def test_a_shard_cut_after_the_index_was_read_is_named_when_it_is_read(folder: Path) -> None:
    reader = ShardReader(folder)
    path = folder / "shard-00001.arrayrecord"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert reader[0] == RECORDS[0]
    with pytest.raises(ShardError, match=r"shard-00001\.arrayrecord is cut off, or does not have its 4 records"):
        reader[4]


def test_a_flipped_bit_is_found(folder: Path) -> None:
    path = folder / "shard-00002.arrayrecord"
    data = bytearray(path.read_bytes())
    place = data.find(RECORDS[8].image[1000:1100])
    data[place] ^= 1
    path.write_bytes(data)
    reader = ShardReader(folder)
    with pytest.raises(ShardError, match=r"shard-00002\.arrayrecord: record 0 cannot be read"):
        reader[8]
    assert reader[9] == RECORDS[9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not an index of shards"),
        ('{"format": 1}', "is not an index of shards"),
        ('{"format": 2, "shards": []}', "has format 2, and this clipita reads 1"),
    ],
)
def test_an_index_that_is_none_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ShardError, match=message):
        ShardReader(tmp_path)


def test_a_folder_without_an_index_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no index.json in .*: is it a folder of shards"):
        ShardReader(tmp_path)


def test_an_index_may_name_shards_that_were_written_one_by_one(tmp_path: Path) -> None:
    shards = [write_shard(tmp_path / f"{name}.arrayrecord", RECORDS[:3]) for name in "ab"]
    write_index(tmp_path, shards[::-1])
    assert json.loads((tmp_path / "index.json").read_text())["records"] == 6
    assert ShardReader(tmp_path).shards == [
        Shard(f"{name}.arrayrecord", 3, (tmp_path / f"{name}.arrayrecord").stat().st_size) for name in "ba"
    ]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with written_whole(path) as partial:
        partial.write_text("one")
        assert not path.exists()

    def fail() -> None:
        with written_whole(path) as partial:
            partial.write_text("two")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "one"
    assert [found.name for found in tmp_path.iterdir()] == ["a.txt"]
    (tmp_path / f".a.txt.0{PARTIAL}").write_text("half")
    remove_partial(tmp_path)
    assert [found.name for found in tmp_path.iterdir()] == ["a.txt"]
