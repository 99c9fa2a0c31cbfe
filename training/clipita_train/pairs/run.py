"""Train a recipe for whole towers."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from clipita.convert.layouts.efficientnet_lite import fold_batch_norm
from clipita.errors import ImageError, TextError
from clipita.images.pixels import Preprocessing
from clipita.text.tokenizer import Tokenizer, check_text
from clipita.towers.dual import DualEncoder
from clipita_train.augment.presets import PRESETS
from clipita_train.engine.config import StageConfig
from clipita_train.engine.loop import Split, fit
from clipita_train.engine.mesh import make_mesh
from clipita_train.engine.rules import match_rules
from clipita_train.engine.state import split_model
from clipita_train.pairs.batches import (
    RowMaker,
    UnreadableLog,
    pixels_of,
    tokens_of,
    training_batches,
    validation_batches,
)
from clipita_train.pairs.files import Pair, Pairs, Part, open_pairs, split_pairs
from clipita_train.pairs.model import build_model, dual_config, pair_loss
from clipita_train.pairs.recipe import PairRecipe, PairSource
from clipita_train.towers.backbones import PretrainedImageTower, PretrainedTextTower, read_image_tower, read_text_tower
from clipita_train.towers.features import image_features, locked_image_tower, locked_text_tower, text_features

DATA = "data_hash"  # its name in config.json


def train(recipe: PairRecipe, out: Path, *, resume: bool = False, tensorboard: bool = False) -> DualEncoder:
    """Run the recipe's stages, and return the model with the best weights of the last one.

    Args:
        recipe: The recipe.
        out: Receives the files of `fit`, "left-out.txt", which lists what could not be read, and "features", the
            features of locked towers.
        resume: Go on with the run that is there.
        tensorboard: Also write files for TensorBoard.

    Raises:
        ClipitaError: A backbone or a shard cannot be read.
        FileNotFoundError: A file of a source does not exist.
        ValueError: Pairs cannot be read, or settings do not fit; see also `fit`.
    """
    run = PairRun(recipe, out)
    return fit(
        run.model,
        recipe.training,
        pair_loss(recipe, run.image.preprocessing.image_size),
        run.make_batches,
        out_dir=out,
        settings={**settings_of(recipe), DATA: run.data_hash},
        resume=resume,
        tensorboard=tensorboard,
    )


def load_run(recipe: PairRecipe) -> tuple[PretrainedImageTower, PretrainedTextTower, DualEncoder]:
    """Return the recipe's towers, and the model that its run starts from."""
    image, text = read_image_tower(recipe.image), read_text_tower(recipe.text)
    return image, text, build_model(recipe, image, text, make_mesh(recipe.train.mesh))


def settings_of(recipe: PairRecipe) -> dict[str, Any]:
    """Return what decides a run beside its `TrainConfig` and its data; folders and numbers of threads do not."""
    settings = asdict(recipe)
    for name in ("train", "features"):
        del settings[name]
    for name in ("root", "threads"):
        del settings["data"][name]
    return {"recipe": settings}


class PairRun:
    """A recipe's towers and pairs on this machine."""

    def __init__(self, recipe: PairRecipe, out: Path) -> None:
        self.recipe = recipe
        self._features_folder = out / "features" if recipe.features is None else Path(recipe.features)
        self.image, self.text, self.model = load_run(recipe)
        self.config = dual_config(recipe, self.image, self.text)
        self.tokenizer = tokenizer_in(self.text)
        out.mkdir(parents=True, exist_ok=True)
        which = f"-{jax.process_index()}" if jax.process_index() else ""
        self._left_out = UnreadableLog(out / f"left-out{which}.txt", tqdm.write)
        self._sources, shares, self._weights = list[Pairs](), list[float](), list[float]()
        for source in recipe.data.sources:
            for path, share in _lists(source, recipe.data.validation_share):
                listed = replace(source, path=path)
                self._sources.append(open_pairs(listed, Path(recipe.data.root), self._left_out))
                shares.append(share)
                self._weights.append(source.weight)
        self._left_out.allow(sum(map(len, self._sources)))
        train_parts, validation_parts = split_pairs(self._sources, shares)
        self._parts: dict[Split, list[Part]] = {"train": train_parts, "validation": validation_parts}

    @property
    def data_hash(self) -> str:
        """A hash of the names of photographs and of captions, and of the index of shards."""
        return hashlib.sha256("\n".join(pairs.fingerprint for pairs in self._sources).encode()).hexdigest()

    def make_batches(self, stage: StageConfig, split: Split) -> Any:
        """Return batches for `clipita_train.engine.loop.fit`."""
        recipe, alone = self.recipe, jax.process_count() == 1
        augmented = split == "train" and recipe.augmentation != "none"
        rows = RowMaker(
            self._image_reader(stage, augmented),
            self._text_reader(stage),
            self._left_out,
            seed=recipe.train.seed,
            validates=split == "validation",
            may_flip=augmented and recipe.spare_sides and PRESETS[recipe.augmentation].flip > 0,
        )
        # Each process has a part of the batch, and cannot know the longest text of the others.
        lengths = (*(sorted(recipe.text.lengths) if alone else ()), self.tokenizer.config.max_tokens)
        options: dict[str, Any] = {
            "batch_size": stage.batch_size,
            "lengths": lengths,
            "threads": recipe.data.threads,
            "process": (jax.process_index(), jax.process_count()),
        }
        parts = self._parts[split]
        if split == "validation":
            return validation_batches(parts, rows, **options)
        index = recipe.training.stages.index(stage)
        return training_batches(parts, self._weights, rows, seed=recipe.train.seed, stage=index, **options)

    def _image_reader(self, stage: StageConfig, augmented: bool) -> Callable[[int, Pair], dict[str, Any]]:
        if self._is_cached(stage, "image") and self.recipe.augmentation == "none":
            features, row_of, readable = self._image_features

            def cached(number: int, _: Pair) -> dict[str, Any]:
                if not readable[row_of[number]]:
                    raise ImageError("it could not be read when its features were computed")
                return {"image_features": features[row_of[number]].astype(np.float32)}

            return cached
        margin = self.recipe.image.margin if augmented else 0
        return pixels_of(_larger(self.image.preprocessing, margin))

    def _text_reader(self, stage: StageConfig) -> Callable[[str], dict[str, Any]]:
        if not self._is_cached(stage, "text"):
            return tokens_of(self.tokenizer)
        features, row_of = self._text_features

        def cached(caption: str) -> dict[str, Any]:
            if caption not in row_of:
                check_text(caption, "a caption")  # raises an error that says what is wrong
            return {"text_features": features[row_of[caption]].astype(np.float32)}

        return cached

    def _is_cached(self, stage: StageConfig, tower: str) -> bool:
        """Return whether a tower is locked in this stage and in all stages before."""
        stages = self.recipe.training.stages
        params = split_model(self.model)[1]
        return self.recipe.cache_features and not any(
            rule.multiplier
            for earlier in stages[: stages.index(stage) + 1]
            for path, rule in match_rules(earlier.parameters, params)
            if path.startswith(f"{tower}/")
        )

    @cached_property
    def _image_features(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features of the locked image tower, the row of each pair's photograph in them, and which could be read."""
        tower = locked_image_tower(self.config, fold_batch_norm(_prefixed("image.", self.image.weights)))
        places = {pairs.file(place): (pairs, place) for pairs in reversed(self._sources) for place in range(len(pairs))}
        row_of = {key: row for row, key in enumerate(places)}
        rows = np.array([row_of[pairs.file(place)] for pairs in self._sources for place in range(len(pairs))])

        def opened(key: str) -> Path | bytes:
            pairs, place = places[key]
            return pairs[place].image

        features, readable = image_features(tower, list(places), self.config, self._features_folder, opened=opened)
        return features, rows, readable

    @cached_property
    def _text_features(self) -> tuple[np.ndarray, dict[str, int]]:
        """Features of the locked text tower, and the row of each readable caption in them."""
        tower = locked_text_tower(self.config, _prefixed("text.", self.text.weights), self.tokenizer)
        captions = {
            caption: None
            for pairs in self._sources
            for place in range(len(pairs))
            for caption in pairs[place].captions
            if _is_text(caption)
        }
        features = text_features(tower, list(captions), self.tokenizer, self._features_folder)
        return features, {caption: row for row, caption in enumerate(captions)}


def tokenizer_in(text: PretrainedTextTower) -> Tokenizer:
    """Return the tokenizer of a text tower."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "tokenizer.json"
        path.write_text(text.tokenizer_json, encoding="utf-8")
        return Tokenizer.from_file(path, text.tokenizer)


def _lists(source: PairSource, share: float) -> list[tuple[str, float]]:
    """Return the lists of a source, and the share of each that is for validation."""
    if source.validation is None:
        return [(source.path, share)]
    return [(source.path, 0.0), (source.validation, 1.0)]


def _larger(preprocessing: Preprocessing, margin: int) -> Preprocessing:
    """Return a preprocessing that gives the same picture in more pixels, for augmentation to crop from."""
    size = preprocessing.image_size + margin
    side = preprocessing.short_side
    side = None if side is None else round(side * size / preprocessing.image_size)
    return replace(preprocessing, image_size=size, short_side=side)


def _prefixed(prefix: str, table: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}{name}": np.asarray(values, np.float32) for name, values in table.items()}


def _is_text(caption: str) -> bool:
    try:
        check_text(caption, "a caption")
    except TextError:
        return False
    return True
