"""Define `Model`, which embeds texts and images and finds the labels that fit an image."""

import contextlib
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast, overload

import numpy as np

from clipita.backends.backend import Backend
from clipita.backends.image_encoder import FEW, ImageEncoder, is_one_image, mean_direction
from clipita.bundles.bundle import TOKENIZER
from clipita.errors import CheckpointError, ImageError, TextError
from clipita.images.pixels import Crop, ImageInput, check_crop, describe
from clipita.label_store import LabelStore
from clipita.locale.language import phrase
from clipita.locate.location import Location, kept
from clipita.locate.maps import Asked, Method, check_method, over_picture, tile_maps
from clipita.system.arrays import FloatArray
from clipita.system.memory import give_back
from clipita.system.progress import counting
from clipita.text.italian import with_article
from clipita.text.tokenizer import OnTruncate, TextBatch, Tokenizer
from clipita.towers.opened import OpenedModel
from clipita.zero_shot import (
    LabelBank,
    LabelScore,
    check_distinct,
    check_labels,
    check_templates,
    embed_labels,
    probabilities,
    rank,
)

_MANY = 300  # texts; more take seconds: labels get a progress bar, and threads share them
_RECENT_BANKS = 8  # 1,000 labels take 2 MB at a width of 512


class Encoded(NamedTuple):
    """One result of `Model.iter_encode_image`.

    Attributes:
        key: The path as it was given, or the position for an image that is not a path.
        embedding: (E,) float32 of unit norm, or None if the image could not be read.
        error: The error that it met, or None.
    """

    key: str | int
    embedding: FloatArray | None
    error: ImageError | None


class Model:
    """An image tower and a text tower that share one space. Made by `load`; threads may share it.

    Every embedding is float32 of unit norm, so that a dot product is a cosine. One input gives one result, a list gives
    a list (of embeddings: the rows of an array).
    """

    def __init__(
        self,
        opened: OpenedModel,
        backend: Backend,
        *,
        precision: str,
        decode_threads: int,
        exact: bool,
        label_store: LabelStore,
        pickled_as: tuple[Any, ...],
    ) -> None:
        self._opened = opened
        self._bundle = bundle = opened.bundle
        self._config = bundle.config
        self._preprocessing = opened.preprocessing
        self._tokenizer = Tokenizer.from_file(bundle.path(TOKENIZER), opened.tokenizer)
        self._backend = backend
        self._images = ImageEncoder(backend, self._preprocessing, decode_threads=decode_threads, exact=exact)
        self._label_store = label_store
        self._recent_bank = lru_cache(maxsize=_RECENT_BANKS)(self._make_bank)
        self._pickled_as = pickled_as
        self.precision = precision
        self.fingerprint = bundle.fingerprint(precision, exact=exact)

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._config.name

    @property
    def license(self) -> str:
        """The license of the weights."""
        return self._config.license

    @property
    def embed_dim(self) -> int:
        """The width E of the embeddings."""
        return self._config.embed_dim

    @property
    def image_size(self) -> int:
        """The side of the square that the image tower reads, in pixels."""
        return self._preprocessing.image_size

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text that the text tower reads, special tokens included."""
        return self._tokenizer.config.max_tokens

    @property
    def logit_scale(self) -> float:
        """The multiplier of cosines before a softmax."""
        return self._config.logit_scale

    @property
    def logit_bias(self) -> float | None:
        """The summand of logits in a model that was trained with sigmoids; None for all others."""
        return self._config.logit_bias

    @property
    def templates(self) -> tuple[str, ...]:
        """The sentences that labels are put into unless others are given."""
        return self._config.templates

    @property
    def providers(self) -> tuple[str, ...]:
        """The devices or execution providers that the towers run on, first choice first."""
        return self._backend.providers

    def __repr__(self) -> str:
        return (
            f"Model({self.name!r}, backend={self._backend.name!r}, precision={self.precision!r}, "
            f"embed_dim={self.embed_dim}, fingerprint={self.fingerprint!r})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the name and the settings that the model was loaded with; it is loaded again where it is unpickled."""
        return self._pickled_as

    def __copy__(self) -> "Model":
        """Return the model itself, which nothing changes."""
        return self

    def __deepcopy__(self, _: object) -> "Model":
        """Return the model itself, which nothing changes."""
        return self

    def encode_text(
        self, texts: str | Iterable[str], *, batch_size: int = 64, on_truncate: OnTruncate = "warn"
    ) -> FloatArray:
        """Embed one text or many.

        Args:
            texts: A str, or any number of them.
            batch_size: The most texts in one run of the tower.
            on_truncate: What to do about texts longer than `max_tokens`: cut them and "warn" once, "raise", or cut
                them and "ignore" it.

        Returns:
            Float32 of unit norm, (E,) for a str, (N, E) for many.

        Raises:
            TextError: A text is blank, not a str, or not valid Unicode; the message names its index.

        Example:
            >>> model.encode_text(["un gatto nero", "il mare d'inverno"]).shape
            (2, 256)
        """
        _check_count("batch_size", batch_size)
        listed = _texts_listed(texts)
        output = np.empty((len(listed), self.embed_dim), np.float32)
        batches = self._tokenizer.encode(listed, batch_size=batch_size, on_truncate=on_truncate)
        self._encode_batches(batches, output, lambda _: None)
        return output[0] if isinstance(texts, str) else output

    def _encode_batches(self, batches: list[TextBatch], output: FloatArray, on_done: Callable[[int], object]) -> None:
        """Embed batches of texts into their rows of `output`, and call `on_done` with the size of each."""

        def embed(batch: TextBatch) -> None:
            embeddings = self._backend.encode_tokens(batch.input_ids, batch.attention_mask)
            output[batch.indices] = embeddings[batch.rows]

        with contextlib.ExitStack() as stack:
            run_all = map
            if len(output) >= _MANY and self._backend.text_runs > 1:  # for fewer, another session is not worth loading
                run_all = stack.enter_context(ThreadPoolExecutor(self._backend.text_runs)).map
            for batch, _ in zip(batches, run_all(embed, batches), strict=True):
                on_done(len(batch.indices))
        if len(output) > FEW:
            give_back()

    def encode_image(
        self, images: ImageInput | Iterable[ImageInput], *, crop: Crop = "auto", batch_size: int = 32
    ) -> FloatArray:
        """Embed one image or many.

        Args:
            images: A path, bytes, an open binary file, a PIL image, a uint8 array (H, W), (H, W, 1), (H, W, 3) or
                (H, W, 4); or any number of those.
            crop: The part of an image that the model sees, if it is wider or higher than a square. "center": the part
                that the model was trained on, for most models the middle square; "pad": the whole, smaller, with gray
                beside it; "tiles": the whole in squares along the longer side, each of which takes as long as an image;
                the embedding is their mean. "auto" means "tiles" for a panorama, at least 2.5 times as long as it is
                wide, and "center" for all others, and for all images if the model was loaded with exact=True.
            batch_size: The most images, or tiles of them, in one run of the tower.

        Returns:
            Float32 of unit norm, (E,) for one image, (N, E) for many.

        Raises:
            ImageError: An image cannot be read; the message names its path or index. To go on past such images, use
                `iter_encode_image`.

        Example:
            >>> model.encode_image(["gatto.jpg", "mare.png"]).shape
            (2, 256)
        """
        _check_count("batch_size", batch_size)
        check_crop(crop)
        rows = [mean_direction(squares) for squares in self._images.all(images, crop, batch_size)]
        if is_one_image(images):
            return rows[0]
        return np.array(rows, np.float32).reshape(len(rows), self.embed_dim)

    def iter_encode_image(
        self, images: Iterable[ImageInput], *, crop: Crop = "auto", batch_size: int = 32
    ) -> Generator[Encoded, None, None]:
        """Embed any number of images in bounded memory, and go on past those that cannot be read.

        Files are decoded by a few threads while the tower runs on the batch before. At most two batches are read ahead
        of the one that is being yielded.

        Args:
            images: Many images, as for `encode_image`; they may be endless. Paths and bytes are decoded by threads. An
                array, a PIL image or an open file is read at once when it comes, so it may be changed afterwards.
            crop: As for `encode_image`.
            batch_size: The most images in one run of the tower, with all their tiles.

        Yields:
            An `Encoded` for each image, in order, with its embedding or the `ImageError` that it met.

        Raises:
            BackendError: A forked child continues an iteration that its parent began; the child has no decoding
                threads.

        Example:
            >>> for key, embedding, error in model.iter_encode_image(Path("foto").glob("*.jpg")):
            ...     print(key, error or embedding[:3])
        """
        _check_count("batch_size", batch_size)
        check_crop(crop)
        if is_one_image(images):
            raise ImageError(f"images must be a list or another iterable of images, but it is {describe(images)}.")
        return self._iter_means(images, crop, batch_size)

    def _iter_means(self, images: Iterable[ImageInput], crop: Crop, batch_size: int) -> Generator[Encoded, None, None]:
        with contextlib.closing(self._images.iter(images, crop, batch_size)) as results:
            for key, squares in results:
                if isinstance(squares, ImageError):
                    yield Encoded(key, None, squares)
                else:
                    yield Encoded(key, mean_direction(squares), None)

    def label_bank(self, labels: Iterable[str], *, templates: str | Sequence[str] | None = None) -> LabelBank:
        """Embed labels once, for `zero_shot` on many images.

        The last eight banks are kept: `zero_shot` with the labels of one of them embeds no text again. The vectors of
        more than 32 labels are also kept on disk, in $HF_HOME/clipita/.labels or below the `cache_dir` of `load`, by
        hashes of their words, in at most four files of 32 MB: another process with the same labels reads them. The
        folder may be deleted; where it cannot be written, nothing is kept.

        Args:
            labels: Distinct labels, e.g. ["cane", "gatto"].
            templates: Sentences with one "{}" each, e.g. ["una foto di {}", "un disegno di {}"]; several are averaged.
                Labels go into them as they are: templates="{}" embeds the bare words. None means the templates of the
                model; bare nouns then get an article, so that "gatto" becomes "un gatto" and "neve" becomes "della
                neve", and labels with an article of their own, names and sentences stay as they are (see
                `clipita.text.italian.with_article`).

        Returns:
            The labels with their embeddings, (K, E).

        Raises:
            TextError: There are no labels, one comes twice or is not text, or a template lacks its "{}".
        """
        checked = check_labels(labels)
        if templates is None:
            return self._recent_bank(checked, self.templates, bare=False)
        return self._recent_bank(checked, check_templates(templates), bare=True)

    def _encode_with_bar(self, texts: list[str]) -> FloatArray:
        """Embed texts as (N, E), with a progress bar if they are many."""
        if len(texts) < _MANY:
            return self.encode_text(texts)
        output = np.empty((len(texts), self.embed_dim), np.float32)
        with counting(phrase("Embedding labels"), len(texts)) as bar:
            self._encode_batches(self._tokenizer.encode(texts), output, bar.update)
        return output

    def _make_bank(self, labels: tuple[str, ...], templates: tuple[str, ...], *, bare: bool) -> LabelBank:
        phrases = labels if bare else [with_article(label) for label in labels]
        check_distinct(labels, [self._tokenizer.normalized(phrase) for phrase in phrases])
        embeddings = self._label_store.vectors(
            phrases, templates, lambda some: embed_labels(self._encode_with_bar, some, templates)
        )
        embeddings.flags.writeable = False  # the bank is shared by all calls with the same labels
        return LabelBank(labels, embeddings, self.fingerprint)

    @overload
    def zero_shot(  # pyright: ignore[reportOverlappingOverload]
        self,
        images: ImageInput,
        labels: Iterable[str] | LabelBank,
        *,
        templates: str | Sequence[str] | None = None,
        top_k: int | None = None,
        min_cosine: float | None = None,
        crop: Crop = "auto",
        batch_size: int = 32,
    ) -> list[LabelScore]: ...

    @overload
    def zero_shot(
        self,
        images: Iterable[ImageInput],
        labels: Iterable[str] | LabelBank,
        *,
        templates: str | Sequence[str] | None = None,
        top_k: int | None = None,
        min_cosine: float | None = None,
        crop: Crop = "auto",
        batch_size: int = 32,
    ) -> list[list[LabelScore]]: ...

    def zero_shot(
        self,
        images: ImageInput | Iterable[ImageInput],
        labels: Iterable[str] | LabelBank,
        *,
        templates: str | Sequence[str] | None = None,
        top_k: int | None = None,
        min_cosine: float | None = None,
        crop: Crop = "auto",
        batch_size: int = 32,
    ) -> list[LabelScore] | list[list[LabelScore]]:
        """Find the labels that fit an image, by a softmax over logit_scale x cosine.

        A model with a `logit_bias` (SigLIP) judges each label by itself: scores are sigmoids of logit_scale x cosine +
        logit_bias, do not sum to 1, and are all near 0 if no label fits.

        Args:
            images: One image or many, as for `encode_image`.
            labels: Distinct labels, or a `LabelBank` that this model made. A bare noun gets its article: "gatto"
                becomes "un gatto".
            templates: As for `label_bank`. A bank has its own templates in it, and takes no others.
            top_k: Return only the best labels, at most this many; their scores stay those among all labels.
            min_cosine: Return only labels whose cosine with the image is at least this, so that a photograph of none of
                them gives an empty list; their scores stay those among all labels. A good threshold depends on the
                model, the labels and the templates: MODEL_CARD.md has clipita-mini's.
            crop: As for `encode_image`. In tiles each label gets the score of the tile that it fits best.
            batch_size: The most images in one run of the tower.

        Returns:
            Labels with scores, best first: a list for one image, a list of lists for many.

        Raises:
            ImageError, TextError: An image, a label or a template cannot be used.
            CheckpointError: The bank was made by another model.

        Example:
            >>> model.zero_shot("foto.jpg", ["cane", "gatto"])
            [LabelScore(label='gatto', score=0.98), LabelScore(label='cane', score=0.02)]
        """
        if top_k is not None:
            _check_count("top_k", top_k)
        if min_cosine is not None and not -1 <= min_cosine <= 1:
            raise ValueError(f"min_cosine must be from -1 to 1, not {min_cosine!r}")
        if isinstance(labels, LabelBank):
            if templates is not None:
                raise ValueError("templates belong to label_bank; this bank already has its own in it")
            if labels.fingerprint != self.fingerprint:
                raise CheckpointError(
                    f"this label bank was made by a model with fingerprint {labels.fingerprint}, and this one has "
                    f"{self.fingerprint}: their spaces differ. Make it again with this model's label_bank."
                )
            bank = labels
        else:
            bank = self.label_bank(labels, templates=templates)
        check_crop(crop)
        _check_count("batch_size", batch_size)
        cosines = np.array(
            [(squares @ bank.embeddings.T).max(axis=0) for squares in self._images.all(images, crop, batch_size)],
            np.float32,
        ).reshape(-1, len(bank.labels))  # (N, K)
        scores = probabilities(cosines, self.logit_scale, self.logit_bias)
        fits = None if min_cosine is None else cosines >= min_cosine
        ranked = [rank(bank.labels, row, top_k, None if fits is None else fits[i]) for i, row in enumerate(scores)]
        return ranked[0] if is_one_image(images) else ranked

    @overload
    def locate(  # pyright: ignore[reportOverlappingOverload]
        self, image: ImageInput, text: str, *, method: Method = "auto", crop: Crop = "auto"
    ) -> Location: ...

    @overload
    def locate(
        self, image: ImageInput, text: Iterable[str], *, method: Method = "auto", crop: Crop = "auto"
    ) -> list[Location]: ...

    def locate(
        self, image: ImageInput, text: str | Iterable[str], *, method: Method = "auto", crop: Crop = "auto"
    ) -> Location | list[Location]:
        """Find where in a picture something is.

        A map says what made the cosine what it is, wherever the text came from; it does not say whether the thing is
        there. Towers see much of the surroundings at every place, and a few of them mark a place of their own for all
        pictures: take the map as a hint, not as an outline.

        Args:
            image: One image, as for `encode_image`.
            text: What to look for, in a sentence or as "il gatto", or many of them: the picture is then seen once.
            method: "exact": the shares of the tower's positions in the cosine, in one pass. They are exact for towers
                that end in an average and a linear projection, as clipita-mini does. "patches": the cosine of each
                position by itself, an approximation; a class token or pooling query never saw the patches that way.
                "occlusion": how much of the cosine is lost when a gray square hides the place, in 81 passes for a
                square, of any model. "auto": "exact" where the tower allows it, else "occlusion".
            crop: As for `encode_image`.

        Returns:
            A `Location` for a str, a list of them for many.

        Raises:
            ImageError, TextError: The image or a text cannot be used.
            BackendError: The tower gives no map by that method.

        Example:
            >>> model.locate("foto.jpg", "il gatto").overlay().save("mappa.png")
        """
        check_method(method)
        check_crop(crop)
        texts = _texts_listed(text)
        queries = self.encode_text(texts)
        source = kept(image)
        seen = self._images.seen(source, crop)
        asked = Asked(self.name, self._backend, seen.squares, queries, self._preprocessing.mean_gray)
        method, tiles = tile_maps(asked, method, self._opened.meaning_of_positions())
        maps = over_picture(tiles, seen)
        found = [
            Location(sought, float(cosine), values, method, source)
            for sought, cosine, values in zip(texts, tiles.cosines, maps, strict=True)
        ]
        return found[0] if isinstance(text, str) else found

    def save_pretrained_hf(self, folder: str | os.PathLike[str]) -> None:
        """Write the model as a VisionTextDualEncoder, which the transformers library loads.

        Its `logit_scale` is the logarithm of ours, as that library expects, so that logits are the same. Weights of few
        bits are written as the float32 numbers that they stand for.

        Args:
            folder: The folder to write to. It is made if it does not exist; files of the same names are replaced.

        Raises:
            CheckpointError: That class cannot hold this model. It takes BERT's or CLIP's text tower with an image tower
                of CLIP, SigLIP or ViT, linear projections, and no bias of the logits.

        Example:
            >>> model.save_pretrained_hf("clip-italian")
            >>> transformers.VisionTextDualEncoderModel.from_pretrained("clip-italian")
        """
        from clipita.convert.to_transformers import write_vision_text_dual_encoder

        write_vision_text_dual_encoder(self._bundle, Path(folder))


def _texts_listed(texts: object) -> list[str]:
    if isinstance(texts, str):
        return [texts]
    # A set has no order, so that no caller could tell the rows apart; bytes would be taken for a list of numbers.
    if isinstance(texts, bytes | bytearray | Mapping | Set) or not isinstance(texts, Iterable):
        raise TextError(f"texts must be a str or a list of str, not {type(cast(object, texts)).__name__}.")
    return list(cast(Iterable[str], texts))


def is_count(value: object) -> bool:
    """Tell whether a value is a whole number from 1 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_count(name: str, value: object) -> None:
    if not is_count(value):
        raise ValueError(f"{name} must be a whole number from 1 on, not {value!r}")
