"""The tagger itself: a spaCy pipeline with a single morphologizer, small enough to be part of the package.

Words are hashed by their lower case, first letter, last three letters and shape into small tables. Frequent words also
have a vector in the lexicon, which says what a large model knows about them. Four convolutions see four words to each
side. Stored are the weights, in half precision, and the lexicon, in bytes; the pipeline around them is made anew.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import spacy
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from spacy.vectors import Vectors
from thinc.api import Adam, fix_random_seed
from tqdm import tqdm

from clipita_train.tagger.treebank import TAGS, Sentence

Targets = NDArray[np.float32]  # (tokens, TAGS), a distribution over tags for each token

WIDTH, DEPTH = 96, 4
ROWS = {"NORM": 6_000, "PREFIX": 1_000, "SUFFIX": 3_000, "SHAPE": 1_500}
BATCH, RATE, DROPOUT = 64, 2e-3, 0.15
PRECISION = 32  # integer steps of the lexicon in a standard deviation


class Lexicon(NamedTuple):
    """Words in lower case, and the values of each, (words, D) int8, to be divided by `PRECISION`."""

    words: tuple[str, ...]
    values: NDArray[np.int8]


def untrained(lexicon: Lexicon) -> Language:
    """Return the pipeline before training."""
    nlp = spacy.blank("it")
    keys = [nlp.vocab.strings.add(word) for word in lexicon.words]
    data = lexicon.values.astype(np.float32) / PRECISION
    nlp.vocab.vectors = Vectors(strings=nlp.vocab.strings, data=data, keys=keys, attr="LOWER")
    embed = {
        "@architectures": "spacy.MultiHashEmbed.v2",
        "width": WIDTH,
        "attrs": list(ROWS),
        "rows": list(ROWS.values()),
        "include_static_vectors": True,
    }
    encode = {
        "@architectures": "spacy.MaxoutWindowEncoder.v2",
        "width": WIDTH,
        "depth": DEPTH,
        "window_size": 1,
        "maxout_pieces": 3,
    }
    words = {"@architectures": "spacy.Tok2Vec.v2", "embed": embed, "encode": encode}
    pipe: Any = nlp.add_pipe("morphologizer", config={"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": words}})
    for tag in TAGS:
        pipe.add_label(f"POS={tag}")
    pipe.model.initialize(X=[nlp.make_doc("prova")], Y=[np.zeros((1, len(TAGS)), np.float32)])
    return nlp


def save(nlp: Language, path: Path) -> None:
    """Write the weights and the lexicon to a compressed .npz file."""
    weights: dict[str, Any] = {name: values.astype(np.float16) for name, values in _weights(nlp).items()}
    vectors = nlp.vocab.vectors
    words = [nlp.vocab.strings[key] for key, row in sorted(vectors.key2row.items(), key=lambda item: item[1])]
    values = np.round(vectors.data * PRECISION).astype(np.int8)
    arrays: dict[str, Any] = {"words": np.frombuffer("\n".join(words).encode(), np.uint8), "values": values}
    np.savez_compressed(path, **arrays, **weights)


def load(path: Path) -> Language:
    """Load the pipeline with stored weights.

    Raises:
        ValueError: The weights are those of another pipeline.
    """
    with np.load(path, allow_pickle=False) as stored:
        table = {name: stored[name] for name in stored.files}
    nlp = untrained(Lexicon(tuple(table.pop("words").tobytes().decode().split("\n")), table.pop("values")))
    expected = {name: values.shape for name, values in _weights(nlp).items()}
    found = {name: values.shape for name, values in table.items()}
    if found != expected:
        raise ValueError(f"{path} does not hold weights of this tagger: expected {expected}, found {found}")
    nodes = list(_model(nlp).walk())
    for name, values in table.items():
        node, parameter = name.split(".")
        nodes[int(node)].set_param(parameter, values.astype(np.float32))
    return nlp


def tags(nlp: Language, sentences: Sequence[Sentence]) -> list[list[str]]:
    """Return the tags of the tokens of each sentence."""
    return [[token.pos_ for token in doc] for doc in nlp.pipe(_doc(nlp, sentence) for sentence in sentences)]


def train(
    sentences: Sequence[Sentence],
    targets: Sequence[Targets],
    lexicon: Lexicon,
    *,
    epochs: int,
    seed: int = 0,
    quiet: bool = False,
) -> Language:
    """Train a tagger; the learning rate falls linearly.

    Args:
        sentences: The sentences.
        targets: For each sentence the distribution over tags for each token.
        lexicon: The lexicon.
        epochs: How often all sentences are seen.
        seed: Seed of the order and of the variations.
        quiet: Whether to show no progress.
    """
    fix_random_seed(seed)
    chance = random.Random(seed)
    nlp = untrained(lexicon)
    model, optimizer = _model(nlp), Adam(RATE)
    steps, step = epochs * -(-len(sentences) // BATCH), 0
    for epoch in range(epochs):
        order = chance.sample(range(len(sentences)), len(sentences))
        loss = 0.0
        for start in tqdm(range(0, len(order), BATCH), f"epoch {epoch + 1} of {epochs}", disable=quiet):
            varied = [vary(sentences[i], targets[i], chance) for i in order[start : start + BATCH]]
            optimizer.learn_rate = RATE * (1 - step / steps)
            for node in model.walk():
                if node.name == "dropout" or "dropout_rate" in node.attrs:
                    node.attrs["dropout_rate"] = DROPOUT
            found, backpropagate = model.begin_update([_doc(nlp, sentence) for sentence, _ in varied])
            slopes = [mine - target for mine, (_, target) in zip(found, varied, strict=True)]
            backpropagate(slopes)
            model.finish_update(optimizer)
            loss += sum(float(np.square(slope).sum()) for slope in slopes)
            step += 1
        if not quiet:
            tqdm.write(f"epoch {epoch + 1}: {loss / sum(map(len, targets)):.4f}")
    return nlp


def lean(nlp: Language, tag: str, by: float) -> None:
    """Make a tag more likely everywhere, by adding `by` to its logit."""
    (last,) = (node for node in _model(nlp).walk() if node.name == "softmax")
    bias = last.get_param("b")
    bias[TAGS.index(tag)] += by
    last.set_param("b", bias)


def vary(sentence: Sentence, target: Targets, chance: random.Random) -> tuple[Sentence, Targets]:
    """Return the sentence, or sometimes a part of it, its names alone, or all in capitals, as captions are.

    It is never put into lower case: that would teach that any unknown word may be a name, which costs 2 points of F1
    for PROPN on the development set of ISDT.
    """
    draw = chance.random()
    if draw < 0.1:
        start = chance.randrange(len(sentence.words))
        stop = start + chance.randint(1, 8)
        return sentence.part(start, stop), target[start:stop]
    if draw < 0.16 and "PROPN" in sentence.tags:
        start = stop = sentence.tags.index("PROPN")
        while stop < len(sentence.tags) and sentence.tags[stop] == "PROPN":
            stop += 1
        return sentence.part(start, stop), target[start:stop]
    if draw < 0.18:
        return sentence._replace(words=tuple(map(str.upper, sentence.words))), target
    return sentence, target


def _doc(nlp: Language, sentence: Sentence) -> Doc:
    return Doc(nlp.vocab, words=list(sentence.words), spaces=list(sentence.spaces))


def _model(nlp: Language) -> Any:
    pipe: Any = nlp.get_pipe("morphologizer")
    return pipe.model


def _weights(nlp: Language) -> dict[str, NDArray[np.float32]]:
    return {
        f"{place}.{name}": node.get_param(name)
        for place, node in enumerate(_model(nlp).walk())
        for name in node.param_names
        if node.has_param(name)
    }
