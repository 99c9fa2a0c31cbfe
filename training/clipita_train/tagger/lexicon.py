"""Make the lexicon of the tagger: what a large model knows about frequent words, in a few bytes each.

The treebanks that may be used have only 15,000 different words. multilingual-e5-small has read a hundred languages, and
after four of its layers a single word lies near words that are used in the same way. The lexicon keeps, for each word,
the main directions of these features, and the probability of each tag by a linear map that is fitted to the words of
the treebanks.
"""

from collections import Counter
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray
from wordfreq import top_n_list

from clipita.towers.bert import Bert
from clipita_train.tagger.student import PRECISION, Lexicon
from clipita_train.tagger.tower import e5_tower, hidden
from clipita_train.tagger.treebank import TAGS, Sentence

WORDS, LAYERS, DIRECTIONS = 30_000, 4, 64
RIDGE = 30.0  # penalty of the linear map, as if so many words had no tag
BATCH = 512

FloatArray = NDArray[np.float32]


def make_lexicon(sentences: Sequence[Sentence]) -> Lexicon:
    """Make the lexicon of the most frequent Italian words; the sentences say which tags words have."""
    words = [word for word in top_n_list("it", 2 * WORDS) if any(map(str.isalpha, word))][:WORDS]
    features = _standard(word_features(words))
    _, directions = np.linalg.eigh(features.T @ features)
    main = features @ directions[:, ::-1][:, :DIRECTIONS]
    columns = np.concatenate([_standard(main), _standard(_tag_guesses(words, features, sentences))], axis=1)
    return Lexicon(tuple(words), np.clip(np.round(columns * PRECISION), -127, 127).astype(np.int8))


def word_features(words: Sequence[str]) -> FloatArray:
    """Return features (words, 384) of single words: the mean over their pieces after `LAYERS` layers of the model."""
    tokenizer, tower = e5_tower(words, layers=LAYERS, rngs=nnx.Rngs(0))
    encodings = tokenizer.encode_batch(list(words))
    order = sorted(range(len(words)), key=lambda i: len(encodings[i].ids))
    features = np.zeros((len(words), tower.word.embedding.shape[1]), np.float32)
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        length = -(-max(len(encodings[i].ids) for i in some) // 4) * 4  # rounded up, so that few shapes are compiled
        ids, pieces = np.ones((BATCH, length), np.int32), np.zeros(BATCH, np.int32)
        for row, i in enumerate(some):
            pieces[row] = len(encodings[i].ids)
            ids[row, : pieces[row]] = encodings[i].ids
        features[some] = np.asarray(_means(tower, jnp.asarray(ids), jnp.asarray(np.maximum(pieces, 3))))[: len(some)]
    return features


@nnx.jit
def _means(tower: Bert, input_ids: jax.Array, pieces: jax.Array) -> jax.Array:
    """Return the means (B, D) over the pieces between <s> and </s>."""
    place = jnp.arange(input_ids.shape[1])[None]
    is_piece = place < pieces[:, None]
    x = hidden(tower, input_ids, is_piece)
    inner = (is_piece & (place > 0) & (place < pieces[:, None] - 1)).astype(x.dtype)[..., None]
    return (x * inner).sum(1) / inner.sum(1)


def _tag_guesses(words: Sequence[str], features: FloatArray, sentences: Sequence[Sentence]) -> FloatArray:
    """Guess the tags of words (words, TAGS) by a linear map of their features, fitted to the tags in treebanks."""
    place = {word: i for i, word in enumerate(words)}
    seen: dict[str, Counter[str]] = {}
    for sentence in sentences:
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            if word.lower() in place:
                seen.setdefault(word.lower(), Counter())[tag] += 1
    shares = np.array([[found[tag] / found.total() for tag in TAGS] for found in seen.values()], np.float32)
    inputs = np.concatenate([features, np.ones((len(features), 1), np.float32)], axis=1)
    known = inputs[[place[word] for word in seen]]
    penalty = RIDGE * np.eye(known.shape[1], dtype=np.float32)
    return (inputs @ np.linalg.solve(known.T @ known + penalty, known.T @ shares)).astype(np.float32)


def _standard(columns: FloatArray) -> FloatArray:
    """Scale columns to mean 0 and standard deviation 1."""
    return (columns - columns.mean(0)) / (columns.std(0) + np.float32(1e-6))
