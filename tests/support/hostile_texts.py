"""Tokenizers, settings, links and ONNX models that mean harm."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clipita.convert.graph.external_data import external_data_inside
from clipita.convert.layouts.preprocessor_config import preprocessing_of
from clipita.convert.readers.weights import read_weights
from clipita.convert.tokenizers.files import tokenizer_of
from clipita.images.pixels import Preprocessing
from clipita.text.tokenizer import Tokenizer, TokenizerConfig
from support.hostile import Case
from support.hostile_weights import file, sparse

CASES: dict[str, Case] = {}


# Tokenizers


def read_tokenizer(folder: Path) -> object:
    """As a conversion reads it, and as a bundle is loaded and used."""
    text, config = tokenizer_of(folder, max_tokens=64)
    (folder / "converted.json").write_text(text, encoding="utf-8")
    return Tokenizer.from_file(folder / "converted.json", config).encode(["un gatto a 漢"])


def add_tokenizer(name: str, message: str, write: Callable[[Path], None]) -> None:
    CASES[f"tokenizer: {name}"] = Case(write, read_tokenizer, message)


def json_file(name: str, content: Callable[[], object]) -> Callable[[Path], None]:
    return file(name, lambda: json.dumps(content()).encode())


def tokenizer_json(**change: Any) -> Callable[[Path], None]:
    whole: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["<pad>", -2.0]]},
    }
    return json_file("tokenizer.json", lambda: whole | change)


def charsmap(trie: bytes, ends: bytes = b"a\0") -> dict[str, object]:
    data = len(trie).to_bytes(4, "little") + trie + ends
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


NO_TOKENIZER = "tokenizer.json"
GROWTH = "makes texts up to"
SIZE = "files of its kind have at most"
TWO_GB = 2 << 30
add_tokenizer("tokenizer.json of 2 GB", "tokenizers have at most", sparse("tokenizer.json", TWO_GB))
for name in (
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "vocab.json",
    "tokenizer_config.json",
):
    add_tokenizer(f"{name} of 2 GB", SIZE, sparse(name, TWO_GB))
add_tokenizer(
    "40 MB of lists", NO_TOKENIZER, file("tokenizer.json", lambda: b'{"model":[' + b"[]," * (13 << 20) + b"0]}")
)
add_tokenizer("lists 1 million deep", NO_TOKENIZER, file("tokenizer.json", lambda: b"[" * 1_000_000))
add_tokenizer("not JSON", NO_TOKENIZER, file("tokenizer.json", lambda: b"{'version'"))
add_tokenizer("not UTF-8", "invalid unicode code point", file("tokenizer.json", lambda: b'{"\xff":1}'))
add_tokenizer("a list", NO_TOKENIZER, json_file("tokenizer.json", list))
add_tokenizer("a model that is a number", NO_TOKENIZER, tokenizer_json(model=7))
add_tokenizer("a vocabulary that is a text", NO_TOKENIZER, tokenizer_json(model={"type": "WordPiece", "vocab": "a"}))
add_tokenizer("an empty vocabulary", NO_TOKENIZER, tokenizer_json(model={"type": "Unigram", "unk_id": 0, "vocab": []}))
add_tokenizer(
    "an unknown piece of no vocabulary",
    NO_TOKENIZER,
    tokenizer_json(model={"type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]]}),
)
add_tokenizer(
    "merges that make its library panic",
    "tokenizer.json.*range end index [0-9]+ out of range",
    tokenizer_json(
        model={"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"], "continuing_subword_prefix": "ééé"}
    ),
)
add_tokenizer("character rules without a trie", "index out of bounds", tokenizer_json(normalizer=charsmap(b"", b"")))
add_tokenizer(
    "character rules that point nowhere",
    "index out of bounds",
    tokenizer_json(normalizer=charsmap(b"\xa5\x3c\x7e\x34" * 100)),
)
add_tokenizer(
    "a normaliser that makes terabytes",
    GROWTH,
    tokenizer_json(
        normalizer={
            "type": "Sequence",
            "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}] * 4,
        }
    ),
)
add_tokenizer(
    "a normaliser that puts 10 MB before",
    GROWTH,
    tokenizer_json(normalizer={"type": "Prepend", "prepend": "a" * 10_000_000}),
)
add_tokenizer(
    "character rules that make 5 MB of a letter",
    "has character rules of",
    tokenizer_json(normalizer=charsmap(b"\0" * 1024, b"a" * 5_000_000 + b"\0")),
)
add_tokenizer(
    "character rules that make 1 MB of a letter",
    GROWTH,
    tokenizer_json(normalizer=charsmap(b"\0" * 1024, b"a" * 1_000_000 + b"\0")),
)
add_tokenizer(
    "a frame of 100,000 tokens",
    "special tokens alone are 100000",
    tokenizer_json(
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "a", "type_id": 0}}] * 100_000
            + [{"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"a": {"id": "a", "ids": [1], "tokens": ["a"]}},
        }
    ),
)
add_tokenizer(
    "no unknown piece",
    "unk_id",
    tokenizer_json(model={"type": "Unigram", "unk_id": None, "vocab": [["<pad>", 0.0], ["b", -1.0]]}),
)
add_tokenizer(
    "padding to 10**12",
    "^$",
    tokenizer_json(
        padding={
            "strategy": {"Fixed": 10**12},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "a",
        }
    ),
)
add_tokenizer(
    "no padding token",
    "no padding token",
    tokenizer_json(model={"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}),
)
add_tokenizer(
    "a setting of the wrong type",
    "model_max_length is",
    lambda folder: [
        tokenizer_json()(folder),
        json_file("tokenizer_config.json", lambda: {"model_max_length": [1]})(folder),
    ][0],
)
add_tokenizer(
    "a vocabulary of 5 million empty lines", "lacks the special tokens", file("vocab.txt", lambda: b"\n" * 5_000_000)
)
add_tokenizer(
    "merges of three parts",
    "vocab.json",
    lambda folder: [
        json_file("vocab.json", lambda: {"a": 0, "<s>": 1, "</s>": 2, "<pad>": 3})(folder),
        file("merges.txt", lambda: b"a b c\n")(folder),
    ][0],
)
add_tokenizer(
    "ids that are texts",
    "not a mapping from pieces to ids",
    lambda folder: [json_file("vocab.json", lambda: {"a": "0"})(folder), file("merges.txt", lambda: b"")(folder)][0],
)


def add_sentencepiece(name: str, message: str, content: Callable[[], bytes]) -> None:
    add_tokenizer(f"SentencePiece, {name}", message, file("sentencepiece.bpe.model", content))


def pieces(count: int) -> bytes:
    return b"".join(b"\x0a\x08\x0a\x01" + bytes([97 + index % 26]) + b"\x15\x00\x00\x00\x80" for index in range(count))


add_sentencepiece("a piece of 2**60 bytes", "are said to follow", lambda: b"\x0a" + b"\xff" * 8 + b"\x0f")
add_sentencepiece("a number without end", "more than 64 bits|middle of a number", lambda: b"\x0a" + b"\xff" * 30)
add_sentencepiece("an unknown wire type", "wire type", lambda: b"\x0f\x00")
add_sentencepiece("text that is not UTF-8", "utf-8", lambda: b"\x0a\x03\x0a\x01\xff")
add_sentencepiece("no pieces", "unknown piece is number 0 of 0", lambda: b"")
add_sentencepiece("1.1 million pieces", "more than 1000000 pieces|files of its kind", lambda: b"\x0a\x00" * 1_100_000)
add_sentencepiece(
    "an unknown piece of none", "unknown piece is number 7 of 5", lambda: pieces(5) + b"\x12\x03\xc0\x02\x07"
)
add_sentencepiece("character rules of nothing", "Precompiled", lambda: pieces(5) + b"\x1a\x03\x12\x01a")


# Settings


def add_settings(name: str, message: str, write: Callable[[Path], None]) -> None:
    default = Preprocessing(32, "squash", "bicubic", (127.5,) * 3, (127.5,) * 3)
    CASES[f"preprocessor_config.json: {name}"] = Case(
        write, lambda folder: preprocessing_of(folder, default=default), message
    )


add_settings("2 GB", SIZE, sparse("preprocessor_config.json", TWO_GB))
add_settings("lists 100,000 deep", "not valid JSON", file("preprocessor_config.json", lambda: b"[" * 100_000))
add_settings("a list", "must hold a JSON object", json_file("preprocessor_config.json", list))
add_settings(
    "squares of 10**9",
    "sides from 1 to 4096",
    json_file("preprocessor_config.json", lambda: {"size": 10**9, "crop_size": 10**9}),
)
add_settings(
    "a number of 5,000 digits",
    "not valid JSON",
    file("preprocessor_config.json", lambda: b'{"size":' + b"9" * 5000 + b"}"),
)


# Links, and what is no file


def add_link(
    name: str, message: str, write: Callable[[Path], None], read: Callable[[Path], object] = read_weights
) -> None:
    CASES[f"links: {name}"] = Case(write, read, message)


def link(name: str, target: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder.parent / "secret").write_bytes(b"secret")
        (folder / name).symlink_to(target)

    return write


def hub_with_a_link_out(folder: Path) -> None:
    snapshot = folder / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir()
    (folder / "secret").write_bytes(b"secret")
    (snapshot / "model.safetensors").symlink_to("../../secret")


LINK = "is a link to .* outside its folder"
add_link("weights of another folder", LINK, link("model.safetensors", "../secret"))
add_link("weights that are /etc/passwd", LINK, link("pytorch_model.bin", "/etc/passwd"))
add_link("a tokenizer of another folder", LINK, link("tokenizer.json", "../secret"), read_tokenizer)
add_link("settings of another folder", LINK, link("tokenizer_config.json", "../secret"), read_tokenizer)
add_link("weights that are /dev/zero", LINK, link("flax_model.msgpack", "/dev/zero"))
add_link("a link to itself", "link", link("model.safetensors", "model.safetensors"))
add_link("a link to nothing", "is no file", link("model.safetensors", "nothing"))
add_link(
    "out of the hub's cache", LINK, hub_with_a_link_out, lambda folder: read_weights(folder / "snapshots" / "0123")
)
add_link("a pipe", "is no file that can be read", lambda folder: os.mkfifo(folder / "model.safetensors"))
add_link("a folder", "is no file that can be read", lambda folder: (folder / "pytorch_model.bin").mkdir())


# ONNX models


def field(number: int, content: bytes) -> bytes:
    length = len(content)
    size = b""
    while length >= 0x80:
        size += bytes([length & 0x7F | 0x80])
        length >>= 7
    return (
        bytes([number << 3 & 0x7F | 2 | (0x80 if number > 15 else 0)])
        + (bytes([number >> 4]) if number > 15 else b"")
        + size
        + bytes([length])
        + content
    )


def stored_at(location: str) -> bytes:
    """A TensorProto whose numbers are in the file `location`."""
    return field(13, field(1, b"location") + field(2, location.encode()))


def model(location: str) -> bytes:
    return field(7, field(5, stored_at(location)))


def in_attribute(location: str) -> bytes:
    """In the tensor of a node in the branch of an If."""
    branch = field(1, field(5, field(5, stored_at(location))))
    return field(7, field(1, field(5, field(6, branch))))


def deep_graph(depth: int) -> bytes:
    graph = b""
    for _ in range(depth):
        graph = field(1, field(5, field(6, graph)))
    return field(7, graph)


def add_onnx(name: str, message: str, content: Callable[[], bytes]) -> None:
    def read(folder: Path) -> object:
        return external_data_inside(folder / "model.onnx", folder)

    CASES[f"ONNX: {name}"] = Case(file("model.onnx", content), read, message)


add_onnx("weights above its folder", "outside its folder", lambda: model("../secret"))
add_onnx("weights by an absolute path", "outside its folder", lambda: model("/etc/passwd"))
add_onnx("weights above, by way of a folder", "outside its folder", lambda: model("x/../../secret"))
add_onnx("weights above, on Windows", "outside its folder", lambda: model("..\\secret"))
add_onnx("weights in a branch of an If", "outside its folder", lambda: in_attribute("../secret"))
add_onnx("weights in a file without a name", "outside its folder", lambda: model(""))
add_onnx("weights that are not there", "which is not there", lambda: model("model.onnx_data"))
add_onnx("a graph 1,000 levels deep", "nest deeper than", lambda: deep_graph(1000))
add_onnx("a field of 2**60 bytes", "are said to follow", lambda: b"\x3a" + b"\xff" * 8 + b"\x0f")
add_onnx("no model", "wire type|middle of a number|said to follow", lambda: b"\xff\xff\xff")
CASES["ONNX: weights behind a link"] = Case(
    lambda folder: [file("model.onnx", lambda: model("data"))(folder), link("data", "../secret")(folder)][0],
    lambda folder: external_data_inside(folder / "model.onnx", folder),
    LINK,
)
CASES["bundle: a tokenizer.json of 2 GB"] = Case(
    sparse("tokenizer.json", TWO_GB),
    lambda folder: Tokenizer.from_file(folder / "tokenizer.json", TokenizerConfig(64)),
    "tokenizers have at most",
)
