"""Weights that mean harm: PyTorch's pickles and archives, safetensors, Flax's msgpack, shards."""

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from clipita.convert.readers.weights import read_weights
from support.hostile import Case

CASES: dict[str, Case] = {}

FLOAT = b"ctorch\nFloatStorage\n"
STORAGE = b"(X\x07\x00\x00\x00storage" + FLOAT + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x08tQ"  # "0", 8 floats
NUMBERS = np.arange(8, dtype="<f4").tobytes()
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def add(name: str, message: str, write: Callable[[Path], None]) -> None:
    CASES[name] = Case(write, read_weights, message)


def file(name: str, content: Callable[[], bytes]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content())

    return write


# Pickles, each in both containers.


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def legacy_of(structure: bytes, keys: object = (), storages: bytes = b"") -> bytes:
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    return head + structure + pickle.dumps(list(keys), 2) + storages


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def shape(*sizes: int) -> bytes:
    return b"(" + b"".join(map(number, sizes)) + b"t"


def tensor(sizes: bytes, strides: bytes, offset: bytes = b"K\x00") -> bytes:
    return REBUILD + b"(" + STORAGE + offset + sizes + strides + b"\x89NtR"


def named(value: bytes) -> bytes:
    """The state dict {"x": value}."""
    return b"\x80\x02}" + text("x") + value + b"s."


def add_pickle(name: str, message: str, structure: Callable[[], bytes]) -> None:
    def zipped() -> bytes:
        return zip_of({"data.pkl": structure(), "data/0": NUMBERS})

    add(f"pickle (zip): {name}", message, file("pytorch_model.bin", zipped))
    legacy = file("pytorch_model.bin", lambda: legacy_of(structure(), ["0"], struct.pack("<q", 8) + NUMBERS))
    add(f"pickle (legacy): {name}", message, legacy)


def system() -> bytes:
    return b"\x80\x02cos\nsystem\n(" + text(f"touch {os.environ['VICTIM']}") + b"tR."


IN_KEY = b"\x80\x02}"  # a dict whose key comes next
add_pickle("calls os.system", "asks for os.system, which is no tensor. Nothing of it was run", system)
add_pickle("calls eval", "asks for builtins.eval", lambda: b"cbuiltins\neval\n(" + text("1") + b"tR.")
add_pickle("INST calls os.system", "uses pickle's INST", lambda: b"(" + text("true") + b"ios\nsystem\n.")
add_pickle("an unknown global", "asks for torch.nn.Linear", lambda: named(b"ctorch.nn\nLinear\n"))
add_pickle(
    "a path through a known name",
    "asks for collections.OrderedDict.__init__.__globals__",
    lambda: b"\x80\x04" + text("collections") + text("OrderedDict.__init__.__globals__") + b"\x93.",
)
add_pickle("a name that is no text", "name that is no text", lambda: b"\x80\x04)K\x01\x93.")
add_pickle("an extension code", "uses pickle's EXT1", lambda: b"\x80\x02\x82\x01.")
add_pickle("makes an object", "uses pickle's NEWOBJ", lambda: b"\x80\x02" + FLOAT + b")\x81.")
add_pickle("calls a tensor", "calls an object that is no function", lambda: named(tensor(shape(8), shape(1)) + b")R"))
add_pickle(
    "sets attributes of a tensor",
    "sets attributes of an object that has none",
    lambda: named(tensor(shape(8), shape(1)) + b"}" + text("shape") + shape(1 << 40) + b"sb"),
)
add_pickle("a tuple 400,000 deep", "not a named tensor|no tensor is in them", lambda: named(b")" + b"\x85" * 400_000))
add_pickle("a tuple 3 million deep", "more than 500000 steps", lambda: named(b")" + b"\x85" * 3_000_000))
add_pickle("a deep tuple as a key", "key of type tuple", lambda: IN_KEY + b")" + b"\x85" * 400_000 + b"Ns.")
add_pickle(
    "a list 200,000 deep", "not a named tensor|no tensor is in them", lambda: named(b"]" * 200_000 + b"a" * 199_999)
)
add_pickle("a key of 2**60 parts", "key of type tuple", lambda: IN_KEY + b")" + b"q\x00h\x00\x86" * 60 + b"Ns.")
add_pickle("a memo of 2**31 entries", "not a named tensor|no tensor is in them", lambda: named(b"Kar\xff\xff\xff\x7f"))
add_pickle("7 million lists", "more than 500000 steps", lambda: named(b"(" + b"]" * 7_000_000 + b"t"))
add_pickle(
    "a list of itself 400,000 times", "more than 500000 steps", lambda: named(b"]q\x00(" + b"h\x00" * 600_000 + b"e")
)
add_pickle("100,000 pairs of 200,000 parts", "positional argument", lambda: shared_pairs())
add_pickle(
    "calls with 200,000 arguments",
    "more than 16 arguments",
    lambda: b"\x80\x02" + REBUILD + b"(" + b"N" * 200_000 + b"tR.",
)
add_pickle("text of 2**62 bytes", "ValueError: expected", lambda: named(b"\x8d" + struct.pack("<Q", 1 << 62)))
add_pickle("bytes of 2**40", "uses pickle's BINBYTES8|ValueError", lambda: named(b"\x8e" + struct.pack("<Q", 1 << 40)))
add_pickle("a number of 2 GB", "ValueError: not enough data", lambda: named(b"\x8b\xff\xff\xff\x7f"))
add_pickle("a number of 5,000 digits", "ValueError", lambda: named(b"I" + b"9" * 5000 + b"\n"))
add_pickle("an empty stack", "takes more from its stack|IndexError", lambda: b"\x80\x02s.")
add_pickle("a memo that is not there", "KeyError", lambda: b"\x80\x02h\x07.")
add_pickle("no end", "ValueError|IndexError", lambda: b"\x80\x02}")
add_pickle("a view of 2**40 by zero strides", "reaches element", lambda: named(tensor(shape(1 << 40), shape(0))))
add_pickle("a view beyond its storage", "reaches element", lambda: named(tensor(shape(8), shape(1), b"K\x01")))
add_pickle("a negative stride", "not up to 16 whole", lambda: named(tensor(shape(8), shape(-1), b"K\x07")))
add_pickle("more strides than sizes", "has 2 strides", lambda: named(tensor(shape(8), shape(1, 1))))
add_pickle("2,000 sizes", "not up to 16 whole", lambda: named(tensor(shape(*[1] * 2000), shape(*[1] * 2000))))
add_pickle(
    "a size that is a text", "not up to 16 whole", lambda: named(tensor(b"(" + text("a" * 1000) + b"t", shape(1)))
)
add_pickle(
    "a storage that is not there",
    "which is not there|no tensor is in them",
    lambda: named(tensor(shape(1), shape(1)).replace(b"\x000X", b"\x009X")),
)


def shared_pairs() -> bytes:
    pair = b"](" + b"N" * 200_000 + b"eq\x01"
    return b"\x80\x02ccollections\nOrderedDict\n(](" + pair + b"h\x01" * 100_000 + b"etR."


def shared_views() -> bytes:
    """5,000 transposed views of one storage of 4 MB: 20 GB, once each is an array of its own."""
    sizes, strides = shape(1000, 1000), shape(1, 1000)
    view = REBUILD + b"(h\x00K\x00" + sizes + strides + b"\x89NtR"
    first = tensor(sizes, strides).replace(STORAGE, STORAGE + b"q\x00")
    rest = b"".join(text(f"x{index}") + view for index in range(1, 5_000))
    return zip_of({"data.pkl": b"\x80\x02}(" + text("x0") + first + rest + b"u.", "data/0": bytes(4_000_000)})


# Zip archives and the older form.


def doubled(name: str) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for member in ("data.pkl", "data/0", name):
                content = named(tensor(shape(8), shape(1))) if member.endswith("pkl") else NUMBERS
                archive.writestr(f"archive/{member}", content)
    return buffer.getvalue()


def edited_zip(edit: Callable[[bytearray, int, int], None]) -> bytes:
    """A good archive after `edit(bytes, start of the last entry of its directory, start of the end record)`."""
    data = bytearray(zip_of({"data.pkl": named(tensor(shape(8), shape(1))), "data/0": NUMBERS}))
    edit(data, data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06"))
    return bytes(data)


def put(data: bytearray, at: int, packing: str, *values: int) -> None:
    data[at : at + struct.calcsize(packing)] = struct.pack(packing, *values)


def add_zip(name: str, message: str, content: Callable[[], bytes]) -> None:
    add(f"zip: {name}", message, file("pytorch_model.bin", content))


def bomb() -> bytes:
    structure = named(tensor(shape(8), shape(1)))
    return zip_of({"data.pkl": structure, "data/0": bytes(300 << 20)}, zipfile.ZIP_DEFLATED)


add_zip("300 MB of zeros, deflated", "is compressed, which PyTorch never does", bomb)
add_zip("5,000 transposed views of one storage", "share their numbers so often", shared_views)
add_zip(
    "a size beyond the file",
    "compressed|said to be in bytes",
    lambda: edited_zip(lambda d, e, _: put(d, e + 20, "<II", 1 << 30, 1 << 30)),
)
add_zip("two sizes that differ", "is compressed", lambda: edited_zip(lambda d, e, _: put(d, e + 24, "<I", 1 << 30)))
add_zip(
    "a member beyond the file", "said to be in bytes", lambda: edited_zip(lambda d, e, _: put(d, e + 42, "<I", 1 << 30))
)
add_zip(
    "members on top of each other",
    "does not begin|overlaps another",
    lambda: edited_zip(lambda d, e, _: put(d, e + 42, "<I", 0)),
)
add_zip(
    "a checksum that differs",
    "damaged: its checksum differs",
    lambda: edited_zip(lambda d, e, _: put(d, e + 16, "<I", 1)),
)
add_zip("an encrypted member", "is compressed", lambda: edited_zip(lambda d, e, _: put(d, e + 8, "<H", 1)))
add_zip(
    "a directory of 3 GB",
    "no whole zip archive|zip directory",
    lambda: edited_zip(lambda d, _, e: put(d, e + 12, "<I", 3 << 30)),
)
add_zip(
    "a directory of 8 MB",
    "its zip directory is said to take",
    lambda: zip_of({f"data/{index:050}": b"" for index in range(50_000)}),
)
add_zip("a storage twice", "is in it twice", lambda: doubled("data/0"))
add_zip("a structure twice", "is in it twice", lambda: doubled("data.pkl"))
add_zip("two structures", "holds 2 files data.pkl", lambda: zip_of({"data.pkl": b"", "b/data.pkl": b""}))
add_zip("nothing in it", "holds 0 files data.pkl|no whole zip", lambda: zip_of({"version": b"3"}))
add_zip("big-endian numbers", "only little-endian", lambda: zip_of({"data.pkl": named(b"N"), "byteorder": b"big"}))
add_zip("cut in half", "no whole zip archive", lambda: bomb()[:150_000])


def add_legacy(name: str, message: str, content: Callable[[], bytes]) -> None:
    add(f"legacy: {name}", message, file("pytorch_model.bin", content))


GOOD = named(tensor(shape(8), shape(1)))
add_legacy(
    "a storage of 2**62 numbers", "said to be in bytes", lambda: legacy_of(GOOD, ["0"], struct.pack("<q", 1 << 62))
)
add_legacy("a storage of -1 numbers", "said to be in bytes", lambda: legacy_of(GOOD, ["0"], struct.pack("<q", -1)))
add_legacy(
    "a storage twice",
    "no names of their own",
    lambda: legacy_of(GOOD, ["0", "0"], (struct.pack("<q", 8) + NUMBERS) * 2),
)
add_legacy("keys that are no names", "no names of their own", lambda: legacy_of(GOOD, [7], struct.pack("<q", 8)))
add_legacy(
    "a storage that no tensor has",
    "no tensor is in them",
    lambda: legacy_of(GOOD, ["0", "1"], struct.pack("<q", 8) + NUMBERS),
)
add_legacy("a plain pickle", "magic number", lambda: pickle.dumps({"x": 1}))
add_legacy("an empty file", "it is empty", lambda: b"")


# safetensors


def safetensors_of(header: bytes | dict[str, object], data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(first: object, last: object, sizes: object = (2,), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": sizes, "data_offsets": [first, last]}


def add_safe(name: str, message: str, content: Callable[[], bytes]) -> None:
    add(f"safetensors: {name}", message, file("model.safetensors", content))


def sparse(name: str, size: int, start: bytes = b"") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        with (folder / name).open("wb") as out:
            out.write(start)
            out.truncate(size)

    return write


add("legacy: a gigabyte of zeros", "ValueError: at position 0", sparse("pytorch_model.bin", 1 << 30))
EIGHT, SIXTEEN = bytes(8), bytes(16)
add_safe("a header longer than the file", "said to be in bytes 8 to 1008", lambda: safetensors_of(b"{}", length=1000))
add_safe("a header of 2**63 bytes", "said to take 9223372036854775808", lambda: safetensors_of(b"{}", length=1 << 63))
add(
    "safetensors: a header of 120 MB",
    "said to take 120000000",
    sparse("model.safetensors", 200_000_000, struct.pack("<Q", 120_000_000)),
)
add_safe(
    "a header of 4 MB of lists",
    "not described by",
    lambda: safetensors_of(b'{"a":[' + b"[]," * 1_390_000 + b"0]}"),
)
add_safe("shorter than its length field", "said to be in bytes 0 to 8", lambda: b"\x00\x01")
add_safe(
    "overlapping tensors", "overlap at byte", lambda: safetensors_of({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12))
)
add_safe(
    "a tensor twice in one place",
    "overlap at byte",
    lambda: safetensors_of({"a": entry(0, 8), "b": entry(0, 8)}, EIGHT),
)
add_safe("a gap", "leave a gap at byte", lambda: safetensors_of({"a": entry(0, 8), "b": entry(12, 20)}, bytes(20)))
add_safe("bytes behind the last tensor", "the file has", lambda: safetensors_of({"a": entry(0, 8)}, SIXTEEN))
add_safe(
    "an offset of 2**62", "said to be in bytes", lambda: safetensors_of({"a": entry(0, 1 << 62, [1 << 60])}, EIGHT)
)
add_safe("a negative offset", "overlap at byte", lambda: safetensors_of({"a": entry(-8, 0)}, EIGHT))
add_safe("an end before its start", "said to be in bytes", lambda: safetensors_of({"a": entry(8, 0)}, EIGHT))
add_safe("an offset that is no whole number", "not described by", lambda: safetensors_of({"a": entry(0, 8.0)}, EIGHT))
add_safe(
    "more bytes than its shape takes",
    "which is not float32 of shape",
    lambda: safetensors_of({"a": entry(0, 16)}, SIXTEEN),
)
add_safe(
    "a shape of 2**80 numbers",
    "which is not float32",
    lambda: safetensors_of({"a": entry(0, 8, [1 << 40, 1 << 40])}, EIGHT),
)
add_safe(
    "a shape whose product overflows to 2",
    "whole numbers",
    lambda: safetensors_of({"a": entry(0, 8, [(1 << 64) + 2])}, EIGHT),
)
add_safe(
    "100,000 dimensions",
    "not up to 16 whole numbers",
    lambda: safetensors_of({"a": entry(0, 4, [1] * 100_000)}, bytes(4)),
)
add_safe("a shape of texts", "not up to 16 whole numbers", lambda: safetensors_of({"a": entry(0, 8, ["2"])}, EIGHT))
add_safe("a shape of true", "not up to 16 whole numbers", lambda: safetensors_of({"a": entry(0, 4, [True])}, bytes(4)))
add_safe("an unknown dtype", "is of type 'O'", lambda: safetensors_of({"a": entry(0, 8, dtype="O")}, EIGHT))
add_safe("a dtype that is a list", "not described by", lambda: safetensors_of({"a": entry(0, 8, dtype=["F32"])}, EIGHT))
add_safe(
    "a name twice",
    "has a name twice",
    lambda: safetensors_of(b'{"a":%s,"a":%s}' % ((json.dumps(entry(0, 8)).encode(),) * 2), EIGHT),
)
add_safe("a header that is not JSON", "JSONDecodeError", lambda: safetensors_of(b"{'a': 1}"))
add_safe("a header that is not UTF-8", "UnicodeDecodeError", lambda: safetensors_of(b'{"\xff": 1}'))
add_safe(
    "a header 500,000 levels deep",
    "RecursionError",
    lambda: safetensors_of(b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}"),
)
add_safe("a header that is a list", "not a JSON object", lambda: safetensors_of(b"[]"))
add_safe(
    "an offset of 5,000 digits",
    "ValueError",
    lambda: safetensors_of(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,%s]}}' % (b"9" * 5000), EIGHT),
)
add_safe(
    "an unknown key", "not described by", lambda: safetensors_of({"a": entry(0, 8) | {"file": "/etc/passwd"}}, EIGHT)
)


# Shards


def sharded(weight_map: object, *names: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder.parent / "outside.safetensors").write_bytes(safetensors_of({"a": entry(0, 8)}, EIGHT))
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        for name in names:
            (folder / name).write_bytes(safetensors_of({"a": entry(0, 8)}, EIGHT))

    return write


OUTSIDE = "no shard in the folder itself"
add("shards: one outside the folder", OUTSIDE, sharded({"a": "../outside.safetensors"}))
add("shards: one by its absolute path", OUTSIDE, sharded({"a": "/etc/passwd.safetensors"}))
add("shards: one in a folder", OUTSIDE, sharded({"a": "x/y.safetensors"}))
add("shards: one of another kind", OUTSIDE, sharded({"a": "pytorch_model.bin"}))
add("shards: one without a name", OUTSIDE, sharded({"a": ".."}))
add("shards: one that is a number", OUTSIDE, sharded({"a": 7}))
add("shards: one that is missing", "which is not there", sharded({"a": "s1.safetensors"}))
add(
    "shards: a tensor that is not in its shard",
    "differ: the shard lacks",
    sharded({"b": "s.safetensors"}, "s.safetensors"),
)
add(
    "shards: a tensor in two shards",
    "differ: the shard lacks",
    sharded({"a": "s.safetensors", "b": "t.safetensors"}, "s.safetensors", "t.safetensors"),
)
add("shards: no map", "has no 'weight_map'", sharded([]))
add("shards: an index of 20 MB", "have at most", sparse("model.safetensors.index.json", 20 << 20))
add(
    "shards: an index 100,000 levels deep",
    "not valid JSON",
    file("model.safetensors.index.json", lambda: b"[" * 100_000),
)


# Flax's msgpack


def add_flax(name: str, message: str, content: Callable[[], bytes]) -> None:
    add(f"msgpack: {name}", message, file("flax_model.msgpack", content))


def key(name: str) -> bytes:
    return bytes([0xA0 | len(name)]) + name.encode()


def tree(value: bytes, name: str = "x") -> bytes:
    return b"\x81" + key(name) + value


def array(sizes: bytes, dtype: bytes, data: bytes, code: int = 1) -> bytes:
    payload = b"\x93" + sizes + dtype + b"\xc4" + bytes([len(data)]) + data
    return b"\xc7" + bytes([len(payload), code]) + payload


TWO = b"\x91\x02"
add_flax("maps 100,000 deep", "nests deeper than 40 levels", lambda: tree(b"\x81\xa1x" * 100_000))
add_flax("lists 100,000 deep", "nests deeper than 40 levels", lambda: tree(b"\x91" * 100_000))
add_flax("a list of 2**32 - 1", "ends at", lambda: tree(b"\xdd\xff\xff\xff\xff"))
add_flax("a map of 2**32 - 1", "ends at", lambda: tree(b"\xdf\xff\xff\xff\xff"))
add_flax("a text of 2**32 - 1", "are said to follow", lambda: tree(b"\xdb\xff\xff\xff\xff"))
add_flax("bytes of 2**32 - 1", "are said to follow", lambda: tree(b"\xc6\xff\xff\xff\xff"))
add_flax("an array of 2**32 - 1 bytes", "are said to follow", lambda: tree(b"\xc9\xff\xff\xff\xff\x01"))
add_flax(
    "20 million nils", "holds more than 500000 values", lambda: tree(b"\xdd\x01\x31\x2d\x00" + b"\xc0" * 20_000_000)
)
add_flax("a name of 8 MB", "a name of 8388608 bytes", lambda: b"\x81\xdb" + struct.pack(">I", 8 << 20) + bytes(8 << 20))
add_flax(
    "a name twice", "is no name, or there twice", lambda: b"\x82" + (key("x") + array(TWO, key("float32"), EIGHT)) * 2
)
add_flax(
    "one path in two ways",
    "twice",
    lambda: (
        b"\x82"
        + key("a/b")
        + array(TWO, key("float32"), EIGHT)
        + key("a")
        + tree(array(TWO, key("float32"), EIGHT), "b")
    ),
)
add_flax("a name that is a number", "is no name", lambda: b"\x81\x01\x01")
add_flax("a leaf that is a number", "is no array, but of type int", lambda: tree(b"\x07"))
add_flax("a leaf that is a list", "is no array, but of type list", lambda: tree(b"\x91\x07"))
add_flax("an unknown extension", "is no array", lambda: tree(array(TWO, key("float32"), EIGHT, code=9)))
add_flax("a byte that begins nothing", "0xc1, which begins no value", lambda: tree(b"\xc1"))
add_flax("a size that lies", "which is not float32 of shape", lambda: tree(array(b"\x91\x04", key("float32"), EIGHT)))
add_flax("a shape of 2**64 - 1", "whole numbers", lambda: tree(array(b"\x91\xcf" + b"\xff" * 8, key("float32"), EIGHT)))
add_flax("a negative size", "whole numbers", lambda: tree(array(b"\x91\xff", key("float32"), EIGHT)))
add_flax("a size of true", "whole numbers", lambda: tree(array(b"\x91\xc3", key("int8"), b"\x00")))
add_flax(
    "a shape that is no list", r"not \[shape, dtype, numbers\]", lambda: tree(array(b"\x02", key("float32"), EIGHT))
)
add_flax(
    "numbers that are a text",
    r"not \[shape, dtype, numbers\]",
    lambda: tree(b"\xc7\x0c\x01\x93\x90" + key("float32") + b"\xa1a"),
)
add_flax("a dtype of objects", "is of type 'object'", lambda: tree(array(b"\x91\x01", key("object"), EIGHT)))
add_flax("a dtype of a gigabyte", "is of type 'S1000000000'", lambda: tree(array(b"\x90", key("S1000000000"), EIGHT)))
add_flax("an array in an array 60 deep", "nests|are said|follow its end|not .shape", lambda: tree(nested_arrays(60)))
add_flax("a header that ends early", "are said to follow|ends at", lambda: tree(b"\xd4\x01\x93"))
add_flax("bytes behind its end", "bytes follow its end", lambda: tree(array(TWO, key("float32"), EIGHT)) + b"\x00" * 9)
add_flax("cut short", "are said to follow", lambda: tree(array(TWO, key("float32"), EIGHT))[:-3])
add_flax("a top level that is a list", "not a map", lambda: b"\x90")
add_flax("chunks that are missing", "the chunks of", lambda: tree(chunked(b"\x81" + key("0") + b"\x04", b"\x80")))
add_flax(
    "chunks of another size", "do not make one array", lambda: tree(chunked(b"\x81" + key("0") + b"\x09", one_chunk()))
)
add_flax(
    "chunks of a shape of 2**47 squared",
    "do not make one array",
    lambda: tree(chunked(b"\x82" + (key("0") + huge() + key("1") + huge()), one_chunk())),
)
add_flax(
    "chunks out of order", "not numbered in order", lambda: tree(chunked(b"\x81" + key("7") + b"\x02", one_chunk()))
)


def nested_arrays(depth: int) -> bytes:
    inner = b"\xc0"
    for _ in range(depth):
        inner = b"\xc9" + struct.pack(">I", len(inner)) + b"\x01" + inner
    return inner


def one_chunk() -> bytes:
    return b"\x81" + key("0") + array(TWO, key("float32"), EIGHT)


def huge() -> bytes:
    return b"\xcf" + struct.pack(">Q", 1 << 47)


def chunked(sizes: bytes, chunks: bytes) -> bytes:
    marker = "__msgpack_chunked_array__"
    return b"\x83" + key(marker) + b"\xc3" + key("shape") + sizes + key("chunks") + chunks
