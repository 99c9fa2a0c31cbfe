"""A run of seconds for the tests: two towers of a few numbers each, pairs that can be learnt, batches with a position.

As a program it is a run that a test can kill: `python training_toy.py OUT_DIR [--stages N] [--slow SECONDS]`.
"""

import argparse
import dataclasses
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from clipita_train.engine.config import ParameterRule, StageConfig, TrainConfig
from clipita_train.engine.loop import fit
from clipita_train.engine.step import pad_rows
from clipita_train.losses.contrastive import softmax_contrastive
from flax import nnx

LOCKED = ParameterRule("(image|text)/.*", 0.0)
HEADS = ParameterRule("(image|text)_projection/.*")


class Towers(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.image = nnx.Linear(6, 8, rngs=rngs)
        self.dropout = nnx.Dropout(0.1)
        self.image_projection = nnx.Linear(8, 4, use_bias=False, rngs=rngs)
        self.text = nnx.Embed(30, 8, rngs=rngs)
        self.text_projection = nnx.Linear(8, 4, use_bias=False, rngs=rngs)

    def __call__(self, pixels: jax.Array, words: jax.Array, key: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        rngs = None if key is None else nnx.Rngs(dropout=key)
        image = self.image_projection(self.dropout(nnx.tanh(self.image(pixels)), rngs=rngs))
        text = self.text_projection(self.text(words))
        return _unit(image), _unit(text)


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def loss_fn(model: Towers, batch: dict[str, jax.Array], key: jax.Array | None) -> tuple[jax.Array, dict]:
    image, text = model(batch["pixels"], batch["words"], key)
    known = batch["mask"][:, None] & batch["mask"][None, :] if "mask" in batch else None
    return softmax_contrastive(image, text, logit_scale=20.0, known=known), {"cosine": (image * text).sum(1).mean()}


class Pairs:
    """Pairs of a noisy vector and its word; shuffled anew each epoch from a seed and the epoch's number."""

    def __init__(self, count: int, batch_size: int, *, train: bool) -> None:
        random = np.random.default_rng(7 if train else 8)
        self.words = random.integers(0, 30, count).astype(np.int32)
        centres = np.random.default_rng(6).normal(size=(30, 6))
        self.pixels = (centres[self.words] + 0.1 * random.normal(size=(count, 6))).astype(np.float32)
        self.batch_size, self.train, self.position = batch_size, train, 0

    def __len__(self) -> int:
        return len(self.words) // self.batch_size

    def __iter__(self) -> "Pairs":
        return self

    def __next__(self) -> dict:
        epoch, start = divmod(self.position, len(self)) if self.train else (0, self.position)
        order = (
            np.random.default_rng([3, epoch]).permutation(len(self.words)) if self.train else np.arange(len(self.words))
        )
        chosen = order[start * self.batch_size : (start + 1) * self.batch_size]
        if not len(chosen):
            raise StopIteration
        self.position += 1
        batch = {"pixels": self.pixels[chosen], "words": self.words[chosen], "ids": chosen}
        return batch if self.train else pad_rows(batch, self.batch_size)

    def get_state(self) -> dict:
        return {"position": self.position}

    def set_state(self, state: dict) -> None:
        self.position = state["position"]


def make_batches(stage: StageConfig, split: str) -> Pairs:
    return Pairs(160 if split == "train" else 50, stage.batch_size, train=split == "train")


def make_config(**changes) -> TrainConfig:
    stages = (
        StageConfig("projections", (LOCKED, HEADS), learning_rate=0.01, batch_size=16, epochs=2, eval_every=10),
        StageConfig("all", (ParameterRule(".*"),), learning_rate=0.01, batch_size=16, steps=30, eval_every=10),
    )
    return TrainConfig(stages=changes.pop("stages", stages), log_every=1, **changes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out_dir")
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--slow", type=float, default=0.0)
    arguments = parser.parse_args()

    class SlowPairs(Pairs):
        def __next__(self) -> dict:
            time.sleep(arguments.slow)
            return super().__next__()

    def slow_batches(stage: StageConfig, split: str) -> Pairs:
        return SlowPairs(160, 16, train=True) if split == "train" else make_batches(stage, split)

    config = make_config(save_every=3)
    config = dataclasses.replace(config, stages=config.stages[: arguments.stages])
    fit(Towers(nnx.Rngs(0)), config, loss_fn, slow_batches, out_dir=arguments.out_dir)


if __name__ == "__main__":
    warnings.simplefilter("error")
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    main()
