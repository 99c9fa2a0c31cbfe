"""A large tagger that teaches the small one: all of multilingual-e5-small with a linear layer on top.

It learns from the treebanks for a few epochs, each in its own style: annotators differ in what they call a name, and a
vector that is added to every word says whose sentence it is. Then it computes the probability of each tag for every
word of free texts, in the wanted styles, and the small tagger learns these (Hinton et al., arXiv:1503.02531).
"""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray
from tqdm import tqdm

from clipita.towers.bert import Bert
from clipita_train.tagger.student import Targets, vary
from clipita_train.tagger.tower import e5_tower, hidden
from clipita_train.tagger.treebank import TAGS, Sentence

BATCH, RATE, DECAY, WARMUP = 16, 2e-4, 0.01, 0.1
STEP = 16  # pieces; lengths are rounded up to a multiple, so that few shapes are compiled
POOL = 50  # batches that are made together, to put sentences of similar length into each
PIECES = 256  # limit of a sentence; nothing is learned from words beyond it, and texts are shorter


class Pieces(NamedTuple):
    """Sentences as token ids of their pieces, padded."""

    ids: NDArray[np.int32]  # (B, L)
    is_piece: NDArray[np.bool_]  # (B, L)
    first: NDArray[
        np.int32
    ]  # (B, L): the first piece of each word; 0, the place of <s>, if it was cut off or is padding


class TeacherNetwork(nnx.Module):
    """The network from pieces to logits of the tags of words."""

    def __init__(self, tower: Bert, styles: int, *, rngs: nnx.Rngs) -> None:
        width = tower.word.embedding.shape[1]
        self.tower = tower
        self.styles = nnx.Param(jnp.zeros((styles, width)))
        self.head = nnx.Linear(width, len(TAGS), rngs=rngs)

    def __call__(self, pieces: Pieces, shares: jax.Array) -> jax.Array:
        """Return logits (B, L, TAGS) of the words, by the first piece of each; places after the last word are padding.

        Args:
            pieces: The pieces of B sentences.
            shares: (B, styles), the share of each style in each sentence.
        """
        x = hidden(
            self.tower, jnp.asarray(pieces.ids), jnp.asarray(pieces.is_piece), (shares @ self.styles[...])[:, None]
        )
        return self.head(jnp.take_along_axis(x, pieces.first[..., None], axis=1))


class Teacher:
    """A tagger that learns from sentences in several styles."""

    def __init__(self, styles: Sequence[Sequence[Sentence]], texts: Sequence[Sentence], *, seed: int = 0) -> None:
        """Make an untrained teacher.

        Args:
            styles: The sentences of each style.
            texts: Sentences whose words it must also know.
            seed: Seed of weights and order.
        """
        words = {word for some in (*styles, texts) for sentence in some for word in sentence.words}
        rngs = nnx.Rngs(seed)
        self.tokenizer, tower = e5_tower(sorted(words), rngs=rngs)
        self.tokenizer.enable_truncation(PIECES)
        self.styles = styles
        self.model = TeacherNetwork(tower, len(styles), rngs=rngs)
        self.chance = random.Random(seed)

    def train(self, *, epochs: int, quiet: bool = False) -> None:
        """Learn the tags of the sentences, each in its style; the learning rate rises, and then falls as a cosine."""
        rows = [(sentence, style) for style, some in enumerate(self.styles) for sentence in some]
        steps = epochs * -(-len(rows) // BATCH)
        rate = optax.warmup_cosine_decay_schedule(0.0, RATE, int(WARMUP * steps), steps)
        transform = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=DECAY))
        optimizer = nnx.Optimizer(self.model, transform, wrt=nnx.Param)
        with tqdm(total=steps, desc="teacher", disable=quiet) as bar:
            for _ in range(epochs):
                varied = [(self._varied(sentence), style) for sentence, style in rows]
                for batch in self._batches([sentence for sentence, _ in varied], shuffled=True):
                    sentences, pieces = [varied[i][0] for i in batch], self._pieces([varied[i][0] for i in batch])
                    tags = np.zeros(pieces.first.shape, np.int32)
                    for row, sentence in zip(tags, sentences, strict=False):
                        row[: len(sentence.tags)] = [TAGS.index(tag) for tag in sentence.tags][: len(row)]
                    shares = np.zeros((BATCH, len(self.styles)), np.float32)
                    shares[range(len(batch)), [varied[i][1] for i in batch]] = 1
                    loss = _learn(self.model, optimizer, pieces, shares, tags)
                    bar.set_postfix(loss=float(loss), refresh=False)
                    bar.update()

    def probabilities(
        self, sentences: Sequence[Sentence], styles: Sequence[int], *, quiet: bool = False
    ) -> list[Targets]:
        """Return the probability (tokens, TAGS) of each tag for each sentence, for the mean of these styles."""
        shares = np.zeros((BATCH, len(self.styles)), np.float32)
        shares[:, list(styles)] = 1 / len(styles)
        found: dict[int, Targets] = {}
        with tqdm(total=len(sentences), desc="texts", disable=quiet) as bar:
            for batch in self._batches(sentences):
                rows = np.asarray(_say(self.model, self._pieces([sentences[i] for i in batch]), shares))
                for row, i in zip(rows, batch, strict=False):
                    found[i] = row[: len(sentences[i].words)]
                bar.update(len(batch))
        return [found[i] for i in range(len(sentences))]

    def _varied(self, sentence: Sentence) -> Sentence:
        return vary(sentence, np.zeros((len(sentence.words), 0), np.float32), self.chance)[0]

    def _batches(self, sentences: Sequence[Sentence], *, shuffled: bool = False) -> Iterator[list[int]]:
        """Put sentences of similar length together; if shuffled, which ones and in which order is random."""
        order = list(range(len(sentences)))
        if shuffled:
            self.chance.shuffle(order)
        pool = BATCH * POOL if shuffled else len(order)
        batches: list[list[int]] = []
        for start in range(0, len(order), pool):
            some = sorted(order[start : start + pool], key=lambda i: len(sentences[i].words))
            batches += [some[first : first + BATCH] for first in range(0, len(some), BATCH)]
        if shuffled:
            self.chance.shuffle(batches)
        return iter(batches)

    def _pieces(self, sentences: Sequence[Sentence]) -> Pieces:
        """Tokenize sentences into `BATCH` rows; the last rows are empty if there are fewer sentences."""
        encodings = self.tokenizer.encode_batch([list(sentence.words) for sentence in sentences], is_pretokenized=True)
        longest = max(len(encoding.ids) for encoding in encodings)
        length = min(-(-longest // STEP) * STEP, PIECES)
        ids, first = np.ones((BATCH, length), np.int32), np.zeros((BATCH, length), np.int32)
        is_piece = np.zeros((BATCH, length), np.bool_)
        is_piece[:, 0] = True
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = encoding.ids
            is_piece[row, : len(encoding.ids)] = True
            for place, word in reversed(list(enumerate(encoding.word_ids))):
                if word is not None:
                    first[row, word] = place
        return Pieces(ids, is_piece, first)


@nnx.jit
def _learn(
    model: TeacherNetwork,
    optimizer: nnx.Optimizer[TeacherNetwork],
    pieces: Pieces,
    shares: NDArray[np.float32],
    tags: NDArray[np.int32],
) -> jax.Array:
    """Make one training step; the loss is the mean cross-entropy of the words."""

    def loss(model: TeacherNetwork) -> jax.Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(model(pieces, jnp.asarray(shares)), tags)
        is_word = (pieces.first > 0).astype(jnp.float32)
        return (losses * is_word).sum() / is_word.sum()

    value, slopes = nnx.value_and_grad(loss)(model)
    optimizer.update(model, slopes)
    return value


@nnx.jit
def _say(model: TeacherNetwork, pieces: Pieces, shares: NDArray[np.float32]) -> jax.Array:
    return jax.nn.softmax(model(pieces, jnp.asarray(shares)))
