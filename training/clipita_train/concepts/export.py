"""Write the bundle of a trained recipe, and check that both backends compute the same embeddings from it."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from clipita.backends.flax import FlaxBackend
from clipita.backends.onnx import OnnxBackend
from clipita.bundles.bundle import Bundle
from clipita.convert.export import Provenance, Storage, write_dual_bundle
from clipita.convert.weights.quantize import dequantize
from clipita.system.arrays import Array
from clipita.towers.config import BertConfig, DualConfig
from clipita_train.concepts.recipe import Corpus, Towers
from clipita_train.concepts.run import Trained
from clipita_train.data.concepts import load_ontology, training_texts
from clipita_train.towers.integers import in_integers
from clipita_train.towers.parity import agree, size_of
from clipita_train.towers.vocabulary import cut_text_tower, italian_vocabulary


@dataclass(frozen=True)
class Exported:
    """A bundle that was written.

    Attributes:
        bundle: The bundle.
        size: Bytes of all its files.
        pieces: Number of pieces in its vocabulary.
        agreement: Smallest cosine between embeddings of ONNX Runtime and of Flax, for the same picture or text, before
            the image tower is computed in integers.
        cosine: Mean cosine of photographs in integers to those in float32; 1 if the recipe does not ask for integers.
    """

    bundle: Bundle
    size: int
    pieces: int
    agreement: float
    cosine: float


def export(corpus: Corpus, trained: Trained, folder: Path, provenance: Provenance) -> Exported:
    """Write the bundle of a recipe.

    Args:
        corpus: Its towers, and the texts whose segmentation must not change.
        trained: The result of `clipita_train.concepts.run.train`.
        folder: Made if missing; a bundle in it is replaced.
        provenance: What the bundle says about its origin.

    Raises:
        CheckpointError: The two backends compute different embeddings.
        ValueError: In integers photographs get other embeddings.
    """
    recipe, towers = corpus.recipe, corpus.towers
    texts = [text for concept in load_ontology().concepts for text in (*training_texts(concept), *concept.held_out)]
    texts += [word for synset in corpus.synsets for word in synset.italian]
    tokenizer, rows = italian_vocabulary(towers.tokenizer_file, texts, frequent_words=recipe.frequent_words)
    config, table = _cut(towers, rows, recipe.tokenizer.max_tokens)
    tokenizer_file = corpus.work / "tokenizer.json"
    tokenizer_file.write_text(tokenizer, encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        bundle = write_dual_bundle(
            Path(scratch) if recipe.integer_images else folder,
            {**table, **trained.weights},
            config,
            provenance=provenance,
            storage=Storage("int8", recipe.weight_formats),
            tokenizer=recipe.tokenizer,
            tokenizer_file=tokenizer_file,
            logit_scale=trained.logit_scale,
            templates=recipe.templates,
        )
        agreement = agree(bundle, FlaxBackend(bundle, precision="int8"), OnnxBackend(bundle, precision="int8"))
        cosine = 1.0
        if recipe.integer_images:
            photographs = [corpus.root / example.path for example in corpus.examples]
            bundle, cosine, _ = in_integers(bundle, photographs, folder)
    return Exported(bundle, size_of(folder), len(rows), agreement, cosine)


def _cut(towers: Towers, rows: Array, positions: int) -> tuple[DualConfig, dict[str, Array]]:
    """Return the architecture and float32 weights of both towers.

    The tables of the text tower keep only the rows that are ever read.
    """
    whole = {name.removeprefix("text."): values for name, values in dequantize(towers.text).items()}
    assert isinstance(towers.config.text, BertConfig)  # `load_towers` takes multilingual-e5-small
    config, text = cut_text_tower(towers.config.text, whole, rows, positions=positions)
    table = {**dequantize(towers.image), **{f"text.{name}": values for name, values in text.items()}}
    return replace(towers.config, text=config), table
