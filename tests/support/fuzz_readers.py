"""Good small files of each format, damaged at random: nothing but CheckpointError may come of them, and little memory.

`python -m support.fuzz_readers SECONDS [SEED]`, in the folder tests,
divides the seconds among the formats and prints what it ran. What it
finds it writes to `fuzz-*` in the working directory, with the seed that makes it again.
"""

import contextlib
import mmap
import os
import random
import resource
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message
from safetensors.numpy import save

import clipita
from clipita.bundles.bundle import write_bundle
from clipita.convert.graph.external_data import external_data_inside
from clipita.convert.readers.weights import read_weights
from clipita.convert.tokenizers.sentencepiece import read_sentencepiece
from clipita.errors import BackendError, CheckpointError
from support.hostile_weights import (
    REBUILD,
    STORAGE,
    array,
    chunked,
    key,
    legacy_of,
    named,
    one_chunk,
    safetensors_of,
    shape,
    tensor,
    text,
    tree,
    zip_of,
)
from support.tiny_bundle import tiny_config, tiny_files

MAX_DATA_BYTES = 512 << 20
MAX_SECONDS = 5.0  # for one input, on a busy machine
NUMBERS = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1)
# Those that build large tensors, that run others, that read files, and that are not there.
OPERATORS = (
    "ConstantOfShape", "Expand", "Tile", "Range", "Pad", "OneHot", "Resize", "RandomNormal", "EyeLike", "Reshape",
    "Loop", "If", "EPContext", "MatMul", "Conv", "ConvTranspose", "MaxPool", "LSTM", "ScatterND", "TopK", "None",
)  # fmt: skip
FOR_DIGITS = (b"0", b"9" * 20, b"-1", b"1e9", b"[", b'"')


@dataclass(frozen=True)
class Format:
    """A file's name, good contents, and what is damaged: all of a file, or a part of it that is then put into one."""

    file: str
    seeds: tuple[bytes, ...]
    pack: Callable[[bytes], bytes] = bytes
    read: Callable[[Path], object] = read_weights
    reworked: bool = False  # as a protocol buffer, which it then still is, and not as bytes

    def content(self, seed: int) -> bytes:
        """The damaged file of a seed."""
        chance = random.Random(seed)
        return self.pack(reworked(self.seeds, chance) if self.reworked and seed % 4 else damaged(self.seeds, chance))


def formats() -> dict[str, Format]:
    weights = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(3, np.int64), "c": np.zeros((0, 2))}
    safe = save(weights, {"format": "pt"})
    head = 8 + int.from_bytes(safe[:8], "little")
    numbers = np.arange(8, dtype="<f4").tobytes()
    structures = torch_structures()
    archive = zip_of({"data.pkl": structures[0], "byteorder": b"little", "data/0": numbers})
    legacy = [legacy_of(structure, ["0"], struct.pack("<q", 8) + numbers) for structure in structures]
    scalar = array(b"\x90", key("bfloat16"), b"\x80\x3f", code=3)
    flax = b"\x82" + key("a") + tree(array(b"\x91\x02", key("float32"), bytes(8)), "w") + key("b") + scalar
    parts = tree(chunked(b"\x82" + key("0") + b"\x01" + key("1") + b"\x02", one_chunk()))
    pieces = b"".join(b"\x0a\x08\x0a\x01" + bytes([97 + index]) + b"\x15\x00\x00\x80\xbf" for index in range(5))
    specs = b"\x12\x05\x18\x01\xc0\x02\x03" + b"\x1a\x02\x12\x00"  # unigram, unknown piece 3; no rules
    external = b"\x08\x0a\x3a\x1a\x2a\x18\x70\x01\x6a\x14\x0a\x08location\x12\x08data.bin"
    return {
        "safetensors": Format("model.safetensors", (safe,)),
        "its header": Format("model.safetensors", (safe[8:head],), lambda part: safetensors_of(part, safe[head:])),
        "PyTorch, zip": Format("pytorch_model.bin", (archive,)),
        "its structure": Format(
            "pytorch_model.bin", structures, lambda part: zip_of({"data.pkl": part, "data/0": numbers})
        ),
        "PyTorch, legacy": Format("pytorch_model.bin", tuple(legacy)),
        "Flax msgpack": Format("flax_model.msgpack", (flax, parts)),
        "SentencePiece": Format("spiece.model", (pieces + specs,), read=read_pieces),
        "ONNX": Format("model.onnx", (external,), read=read_onnx),
        "a bundle's graph": Format("image.onnx", (tiny_files()["image.onnx"],), read=run_graph, reworked=True),
    }


def torch_structures() -> tuple[bytes, ...]:
    """State dicts: one tensor; two views of one storage, with what torch notes beside; one in pickle's protocol 4."""
    one = named(tensor(shape(2, 4), shape(4, 1)))
    stored = tensor(shape(8), shape(1)).replace(STORAGE, STORAGE + b"q\x05")
    view = REBUILD + b"(h\x05K\x02" + shape(2, 2) + shape(1, 2) + b"\x89ccollections\nOrderedDict\n)RtR"
    pairs = b"(" + text("x") + stored + text("y") + view + b"u"
    two = b"\x80\x02ccollections\nOrderedDict\n)R" + pairs + b"}" + text("_metadata") + b"}sb."
    function = b"\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93\x94"
    later = named(tensor(shape(8), shape(1)).replace(REBUILD, function))
    return one, two, b"\x80\x04\x95" + struct.pack("<Q", len(later) - 2) + later[2:]


def read_pieces(folder: Path) -> object:
    return read_sentencepiece((folder / "spiece.model").read_bytes())


def read_onnx(folder: Path) -> object:
    return external_data_inside(folder / "model.onnx", folder)


def run_graph(folder: Path) -> object:
    """Load a bundle with this graph and the right hash of it, and run both towers."""
    files = {**tiny_files(), "image.onnx": (folder / "image.onnx").read_bytes()}
    write_bundle(folder / "bundle", config=tiny_config(), files=files)
    model = clipita.load(folder / "bundle", threads=1)
    try:
        return {"image": model.encode_image(np.zeros((9, 9, 3), np.uint8))[:8]}
    except BackendError as error:
        raise CheckpointError(str(error)) from error


def damaged(seeds: tuple[bytes, ...], chance: random.Random) -> bytes:
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        at = chance.randrange(len(data) + 1)
        length = min(chance.choice((1, 1, 2, 4, 8, 40)), len(data) - at)
        match chance.randrange(9):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(data):
                data[at] = chance.randrange(256)
            case 2 if at < len(data):
                packing = chance.choice(("<B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
                size = struct.calcsize(packing)
                data[at : at + size] = struct.pack(packing, chance.choice(NUMBERS) & (1 << 8 * size) - 1)
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = chance.randbytes(length)
            case 5:
                data[at:at] = data[at : at + length] * chance.choice((1, 2, 50))
            case 6:
                del data[at:]
            case 7:
                other = chance.choice(seeds)
                start = chance.randrange(len(other))
                data[at : at + length] = other[start : start + chance.choice((1, 4, 20))]
            case _:
                digits = [index for index, byte in enumerate(data) if 48 <= byte <= 57] or [0]
                place = chance.choice(digits)
                data[place : place + 1] = chance.choice(FOR_DIGITS)
    return bytes(data)


def reworked(seeds: tuple[bytes, ...], chance: random.Random) -> bytes:
    """An ONNX model with other numbers, names and operators in some places, or some parts once more or gone."""
    model = onnx.load_from_string(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        places = list(_places(model))
        message, field, value = chance.choice(places)
        if field.is_repeated:
            items = getattr(message, field.name)
            at = chance.randrange(len(items))
            match chance.randrange(4):
                case 0:
                    del items[at]
                case 1:
                    items.extend([items[at]] * chance.choice((1, 2, 50)))
                case _ if not isinstance(items[at], Message):
                    with contextlib.suppress(ValueError, TypeError):
                        items[at] = _other(items[at], chance, places)
                case _:
                    items[at].CopyFrom(chance.choice(items))
        elif isinstance(value, Message):
            message.ClearField(field.name)
        else:
            # What the field cannot hold is left out: an enum of a new value, a number that is too large.
            with contextlib.suppress(ValueError, TypeError):
                setattr(message, field.name, _other(value, chance, places))
    return model.SerializeToString()


def _places(message: Message) -> Iterator[tuple[Any, Any, Any]]:
    for field, value in message.ListFields():
        yield message, field, value
        for item in value if field.is_repeated else [value]:
            if isinstance(item, Message):
                yield from _places(item)


def _other(value: Any, chance: random.Random, places: list[tuple[Any, Any, Any]]) -> Any:
    match value:
        case int():
            return chance.choice(
                (*(number for number in NUMBERS if number < 1 << 31), 1 << 40, -1, value + 1, value * 2)
            )
        case float():
            return chance.choice((0.0, -1.0, float("nan"), float("inf"), 1e38))
        case str():
            return chance.choice(
                (*OPERATORS, *(place[2] for place in places if isinstance(place[2], str)), "", "x" * 999)
            )
        case _:
            return damaged((value or b"0",), chance)


def attempt(form: Format, folder: Path, content: bytes) -> str:
    """ "read", "refused", or what went wrong."""
    (folder / form.file).write_bytes(content)
    start = time.monotonic()
    try:
        result = form.read(folder)
        outcome = "read"
    except CheckpointError as error:
        outcome = "MemoryError" if "MemoryError" in str(error) else "refused"
        result = {}
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    if time.monotonic() - start > MAX_SECONDS:
        return f"took {time.monotonic() - start:.1f} s"
    if isinstance(result, dict):
        views = [np.asarray(value) for value in result.values()]
        if any(view.nbytes > len(content) for view in views):
            return "an array larger than its file"
        if sum(int(view.reshape(-1).view(np.uint8).sum()) for view in views if view.size) < 0:  # every byte can be read
            return "unreachable"
    return outcome


def fuzz(form: Format, seeds: Iterator[int], folder: Path) -> tuple[dict[str, int], dict[int, str]]:
    """Run inputs in forks of this process: how many were read and refused, and what went wrong at which seed."""
    counts, findings = {"read": 0, "refused": 0}, dict[int, str]()
    shared = mmap.mmap(-1, 24)  # read, refused, the seed at work: what is left of a process that died
    for batch in _batches(seeds, 2000):
        shared[:] = bytes(24)
        receiving, sending = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(receiving)
            resource.setrlimit(resource.RLIMIT_DATA, (MAX_DATA_BYTES, MAX_DATA_BYTES))
            read = refused = 0
            for seed in batch:
                shared[:] = struct.pack("<QQQ", read, refused, seed)
                outcome = attempt(form, folder, form.content(seed))
                read, refused = read + (outcome == "read"), refused + (outcome == "refused")
                if outcome not in counts:
                    os.write(sending, f"{seed}\t{outcome[:200]}\n".encode())
            shared[:] = struct.pack("<QQQ", read, refused, 0)
            os._exit(0)
        os.close(sending)
        with os.fdopen(receiving, errors="replace") as pipe:
            findings |= {int(line.split("\t")[0]): line.split("\t", 1)[1].strip() for line in pipe if "\t" in line}
        _, status = os.waitpid(child, 0)
        read, refused, seed = struct.unpack("<QQQ", shared[:])
        counts["read"] += read
        counts["refused"] += refused
        if status:
            findings[seed] = f"the process ended with status {status}"
    return counts, findings


@contextlib.contextmanager
def folder_for(form: Format) -> Iterator[Path]:
    """An empty folder, but for what an ONNX model refers to."""
    with tempfile.TemporaryDirectory() as name:
        if form.file == "model.onnx":
            Path(name, "data.bin").touch()
        yield Path(name)


def _batches(seeds: Iterator[int], size: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for seed in seeds:
        batch.append(seed)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def until(deadline: float, first: int) -> Iterator[int]:
    while time.monotonic() < deadline:
        yield first
        first += 1


def main() -> None:
    seconds, first = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 10**12
    every = formats()
    print(f"seeds from {first}\n\n| format | inputs | read | refused | findings |\n|---|---|---|---|---|")
    for name, form in every.items():
        with folder_for(form) as folder:
            counts, findings = fuzz(form, until(time.monotonic() + seconds / len(every), first), folder)
        inputs = sum(counts.values()) + len(findings)
        print(f"| {name} | {inputs} | {counts['read']} | {counts['refused']} | {len(findings)} |", flush=True)
        for seed, what in findings.items():
            print(f"  seed {seed}: {what}")
            Path(f"fuzz-{form.file}-{seed}").write_bytes(form.content(seed))


if __name__ == "__main__":
    main()
