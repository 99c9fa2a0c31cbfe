"""Shards: ArrayRecord files of photographs and captions for training, read in any order.

A folder of shards is one set, e.g. `train/`:

      index.json                         {"format": 1, "records": 9000, "shards": [{"name", "records", "bytes"}, ...]}
      shard-00000-of-00003.arrayrecord   records one by one (group_size:1), not compressed: images are already
      ...

Record i of a set is the i-th record of all its shards, in the order of the index. A record is a msgpack map:

      {"id": str, "image": bytes, "captions": [str, ...]}

"image" is the unchanged file of a JPEG, PNG or WebP, and "id" is SOURCE/KEY, unique in the set. ArrayRecord verifies a
hash of each record when it is read.
"""

import json
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex, cast

import msgpack

from clipita.errors import ClipitaError
from clipita_train.engine.files import written_whole

FORMAT = 1
INDEX = "index.json"
SUFFIX = ".arrayrecord"
SHARD_RECORDS = 4096  # at 50 KB a record, a file has 200 MB
_AGAIN = "Build the data set again, or copy the file again from where it is whole."
_WRITE = "group_size:1,uncompressed"
_READ = "readahead_buffer_size:0,max_parallelism:0"  # as the authors of ArrayRecord advise for random access


class ShardError(ClipitaError):
    """A folder of shards is incomplete, or a file in it is cut off or damaged; the message names the file."""


class Record(NamedTuple):
    """The file of an image, and its captions."""

    id: str
    image: bytes
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Shard:
    """One shard, as the index lists it."""

    name: str
    records: int
    bytes: int


def write_shards(records: Iterable[Record], folder: Path, *, size: int = SHARD_RECORDS) -> list[Shard]:
    """Write records to shards in their order, `size` records to a shard, and then the index.

    Shards that are already in the folder are replaced.
    """
    (folder / INDEX).unlink(missing_ok=True)
    remaining, shards = iter(records), list[Shard]()
    while chunk := list(islice(remaining, size)):
        shards.append(write_shard(folder / f"shard-{len(shards):05}{SUFFIX}", chunk))
    write_index(folder, shards)
    return shards


def write_shard(path: Path, records: Iterable[Record]) -> Shard:
    """Write one shard; if that fails, no file is left."""
    from array_record.python.array_record_module import ArrayRecordWriter

    count = 0
    with written_whole(path) as partial:
        writer = ArrayRecordWriter(str(partial), _WRITE)
        for record in records:
            writer.write(pack(record))
            count += 1
        writer.close()
    return Shard(path.name, count, path.stat().st_size)


def write_index(folder: Path, shards: Sequence[Shard]) -> None:
    """Write the index of these shards, which must all be in `folder`. Files that it does not name are ignored."""
    total = sum(shard.records for shard in shards)
    fields = {"format": FORMAT, "records": total, "shards": [asdict(shard) for shard in shards]}
    with written_whole(folder / INDEX) as partial:
        partial.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


def pack(record: Record) -> bytes:
    """Encode a record as it is stored in a shard."""
    fields = {"id": record.id, "image": record.image, "captions": record.captions}
    return cast("bytes", msgpack.packb(fields))  # None only of a packer that does not reset itself


def unpack(data: bytes) -> Record:
    """Decode what `pack` has encoded."""
    fields: dict[str, Any] = msgpack.unpackb(data)
    return Record(fields["id"], fields["image"], tuple(fields["captions"]))


class ShardReader:
    """The records of a folder of shards as a sequence, which is also a data source for Grain.

    Threads may share it. It can be pickled and sent to other processes, which open the files anew.

    Raises:
        FileNotFoundError: The folder has no index.
        ShardError: The index cannot be read, or a file that it names is missing or has another size.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.shards = _read_index(self.folder)
        self._ends = list(accumulate(shard.records for shard in self.shards))
        self._open: dict[int, Any] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: SupportsIndex) -> Record:
        """Return a record by its number; negative numbers count from the end.

        Raises:
            IndexError: There is no such record.
            ShardError: The record cannot be read; the message names the file.
        """
        number = index.__index__()
        if not -len(self) <= number < len(self):
            raise IndexError(f"record {number} of {len(self)} in {self.folder}")
        number %= len(self)
        place = bisect_right(self._ends, number)
        within = number - self._ends[place] + self.shards[place].records
        path = self.folder / self.shards[place].name
        try:
            return unpack(self._reader(place, path).read([within])[0])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise ShardError(f"{path}: record {within} cannot be read ({error}). {_AGAIN}") from None

    def __iter__(self) -> Iterator[Record]:
        return (self[number] for number in range(len(self)))

    def __repr__(self) -> str:
        return f"ShardReader({str(self.folder)!r}, {len(self)} records in {len(self.shards)} shards)"

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])

    def _reader(self, place: int, path: Path) -> Any:
        from array_record.python.array_record_module import ArrayRecordReader

        with self._lock:
            if place not in self._open:
                reader = ArrayRecordReader(str(path), _READ)
                if not reader.ok() or reader.num_records() != self.shards[place].records:
                    raise ShardError(
                        f"{path} is cut off, or does not have its {self.shards[place].records} records. {_AGAIN}"
                    )
                self._open[place] = reader
            return self._open[place]


def _read_index(folder: Path) -> list[Shard]:
    path = folder / INDEX
    if not path.is_file():
        raise FileNotFoundError(f"no {INDEX} in {folder}: is it a folder of shards, and was the build finished?")
    try:
        fields = json.loads(path.read_text("utf-8"))
        shards = [Shard(**shard) for shard in fields["shards"]]
    except (ValueError, KeyError, TypeError):
        raise ShardError(f"{path} is not an index of shards. {_AGAIN}") from None
    if fields["format"] != FORMAT:
        raise ShardError(f"{path} has format {fields['format']!r}, and this clipita reads {FORMAT}")
    for shard in shards:
        file = folder / shard.name
        found = file.stat().st_size if file.is_file() else None
        if found != shard.bytes:
            what = "is missing" if found is None else f"has {found:,} bytes instead of {shard.bytes:,}"
            raise ShardError(f"{file} {what}. {_AGAIN}")
    return shards
