"""`Index`, which makes a folder of photographs searchable by sentences and by photographs."""

import dataclasses
import datetime
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from clipita.errors import CheckpointError, ClipitaError, TextError
from clipita.images.decode import ImageInput
from clipita.images.photo_files import INDEX_FOLDER
from clipita.images.pixels import Crop
from clipita.loading.load import DEFAULT_MODEL, load
from clipita.loading.open import lasting_name
from clipita.model import Model
from clipita.search.cosines import FloatVectors, HalfVectors, best, cosines
from clipita.search.duplicates import DuplicateGroup, find_duplicates
from clipita.search.embed_folder import fingerprint_of
from clipita.search.embedding_file import Embeddings, read_embeddings, write_embeddings
from clipita.search.filters import Filter
from clipita.search.labels.examples import ExamplesBank, examples_bank
from clipita.search.labels.labeling import Labelled, labelled_files, matches_of, thresholds_of
from clipita.search.presence import Background, Presence, background_phrases, read_presence
from clipita.search.query import Wanted, Weighted, query_vector
from clipita.search.store import Photo, Row, Store
from clipita.search.update import Progress, UpdateSummary, content_of, hash_of, stamp_of, update
from clipita.zero_shot import LabelBank


@dataclasses.dataclass(frozen=True)
class Match:
    """A photograph that a search found.

    Attributes:
        path: Below the folder of photographs, with "/" between the parts. `os.fsencode` gives the bytes of the name,
            whatever they are.
        score: The cosine with the query, from -1 to 1; it ranks, and says little by itself.
        copies: Other paths that hold the same bytes.
        taken: When it was taken, by the camera's clock; None if the file does not say.
        width: In pixels, upright; None if it is not known.
        height: Likewise.
    """

    path: str
    score: float
    copies: tuple[str, ...] = ()
    taken: datetime.datetime | None = None
    width: int | None = None
    height: int | None = None


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """Holds what a search found.

    Attributes:
        found: Whether anything in the archive shows what was asked for, as far as the model can tell.
        matches: The photographs that fit best, best first; none if nothing was found, unless all were asked for.
    """

    found: bool
    matches: list[Match]


class _Snapshot(NamedTuple):
    """Holds the state of an index after so many changes, for searches of it."""

    changes: str
    positions: npt.NDArray[np.int64]
    vectors: HalfVectors


class Index:
    """The photographs of a folder, to be searched; made by `Index.open`. Threads may share it.

    It is kept as plain files in the hidden folder `.clipita` beside the photographs, and moves with them.

    Example:
        >>> index = Index.open("foto")
        >>> index.update().added
        1200
        >>> index.search("una spiaggia al tramonto").matches[0].path
        'sardegna/IMG_0142.jpg'

    Attributes:
        photos: The folder of photographs.
        folder: Where the index is.
    """

    def __init__(self, photos: Path, store: Store, model: Model | None, model_name: str) -> None:
        self.photos, self.folder = photos, store.folder
        self._store, self._model, self._model_name = store, model, model_name
        self._lock = threading.RLock()
        self._snapshot: _Snapshot | None = None
        self._presence_read = False
        self._known_presence: Presence | None = None
        self._kept_background: Background | None = None

    @classmethod
    def open(
        cls,
        photos: str | os.PathLike[str] | None = None,
        *,
        index: str | os.PathLike[str] | None = None,
        model: Model | str | os.PathLike[str] | None = None,
    ) -> "Index":
        """Open the index of a folder of photographs; it is made by the first `update`.

        Args:
            photos: The folder; None means the one that `index` was made of.
            index: Where the index is; None means the hidden folder ".clipita" in `photos`.
            model: What embeds photographs and sentences: a `Model`, or what `load` takes. None means the model that the
                index was made with, for a new one clipita-mini.

        Raises:
            ClipitaError: there is no such folder.
            CheckpointError: the index is damaged, or was made with another model.
        """
        if photos is None:
            if index is None:
                raise ClipitaError("an index has a place: give its folder of photographs, or index=.")
            place = Path(index)
            store = Store(place)
            root = place / store.settings()["photos"]
            photos_folder = Path(os.path.normpath(root))
        else:
            photos_folder = Path(photos)
            store = Store(Path(index) if index is not None else photos_folder / INDEX_FOLDER)
        if not photos_folder.is_dir():
            raise ClipitaError(f"{str(photos_folder)!r} is not a folder.")
        if isinstance(model, Model):
            opened = cls(photos_folder, store, model, _name_of(model))
        elif model is not None:
            opened = cls(photos_folder, store, None, lasting_name(model))
        else:
            opened = cls(photos_folder, store, None, store.settings()["model"] if store.exists() else DEFAULT_MODEL)
        if store.exists():
            opened._check_model()
        return opened

    def __repr__(self) -> str:
        return f"Index({str(self.photos)!r}, index={str(self.folder)!r})"

    @property
    def exists(self) -> bool:
        """Tell whether an `update` has made the index already."""
        return self._store.exists()

    @property
    def model(self) -> Model:
        """The model that embeds photographs and sentences; it is loaded when it is first needed."""
        with self._lock:
            if self._model is None:
                self._model = load(self._model_name)
                if self._store.exists():
                    self._check_model()
            return self._model

    def __len__(self) -> int:
        """Return how many pictures it holds, copies counted once."""
        return len(self._current().positions)

    def update(
        self,
        *,
        crop: Crop | None = None,
        exclude: Sequence[str] | None = None,
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> UpdateSummary:
        """Make the index hold what the folder holds: only pictures that it has never seen are embedded.

        Files are followed by what they hold: one that was moved or renamed, or comes back, is not embedded again, and
        copies are embedded once. A file that cannot be read is kept with its reason, and tried again when it changes.
        Whatever stops an update, at most the batch in work is lost. Meanwhile the index can be searched.

        Args:
            crop: As for `Model.encode_image`. None means what the index was made with, at first "auto".
            exclude: Patterns as a shell has them; files and folders whose name or path fits one are left aside. None
                means those of the update before.
            batch_size: Most images in one run of the tower.
            progress: Hears how far it is.

        Raises:
            ClipitaError: another process updates the index, it cannot be written, or the folder is empty.
            CheckpointError: the index was made with another model or `crop`.
        """
        model = self.model
        if not self._store.exists():
            Store.create(self.folder, self.settings_of_new(crop or "auto"))
        settings = self._store.settings()
        crop = crop or _crop(settings["crop"])
        self._check_model(crop)
        if exclude is None:
            exclude = [pattern for pattern in settings["exclude"].split("\n") if pattern]
        elif exclude != settings["exclude"].split("\n"):
            with self._store.writing() as writer:
                writer.set("exclude", "\n".join(exclude))
                writer.commit()
        return update(
            self._store,
            model,
            self.photos,
            crop=crop,
            exclude=exclude,
            batch_size=batch_size,
            progress=progress or Progress(),
        )

    def search(
        self,
        query: str,
        *,
        more: Iterable[Weighted] = (),
        less: Iterable[Weighted] = (),
        count: int = 20,
        below: str | None = None,
        since: datetime.date | None = None,
        until: datetime.date | None = None,
        show_all: bool = False,
    ) -> SearchResult:
        """Find the photographs that fit a sentence best.

        Args:
            query: A sentence in Italian; `similar` takes a photograph.
            more: Sentences (str) and photographs (Path, bytes, PIL image, array) that are to fit too; each may be a
                pair with its weight, ("la neve", 0.5).
            less: Sentences and photographs that are not to fit.
            count: Most matches.
            below: Only photographs in this folder below the photographs' own, or in one below it.
            since: Only photographs that say that they were taken on that day or later.
            until: Only those that say that they were taken on that day or before.
            show_all: Return the nearest photographs also if nothing shows what was asked for.

        Raises:
            ClipitaError: there is no index yet.
            TextError, ImageError: a sentence or a photograph cannot be used.
        """
        return self._search(query, more, less, count, Filter(below, since, until), show_all)

    def similar(
        self,
        photo: ImageInput,
        *,
        more: Iterable[Weighted] = (),
        less: Iterable[Weighted] = (),
        count: int = 20,
        below: str | None = None,
        since: datetime.date | None = None,
        until: datetime.date | None = None,
    ) -> SearchResult:
        """Find the photographs that resemble one most; of the archive or not, it is among them if it is there.

        Args:
            photo: As for `Model.encode_image`; a str is a path here.
            more: As for `search`.
            less: Likewise.
            count: Most matches.
            below: As for `search`.
            since: Likewise.
            until: Likewise.

        Raises:
            ClipitaError: there is no index yet.
            ImageError, TextError: a photograph or a sentence cannot be used.
        """
        wanted = Path(photo) if isinstance(photo, str) else photo
        return self._search(wanted, more, less, count, Filter(below, since, until), show_all=True)

    def _search(
        self,
        wanted: Wanted,
        more: Iterable[Weighted],
        less: Iterable[Weighted],
        count: int,
        among: Filter,
        show_all: bool,
    ) -> SearchResult:
        if count < 1:
            raise ClipitaError(f"count must be a number from 1 on, not {count!r}.")
        snapshot = self._current()
        positions = self._chosen(snapshot, among)
        if not len(positions):
            return SearchResult(False, [])
        vector = query_vector(
            self.model, wanted, more, less, self._usual_sentence, lambda: _mean(snapshot.vectors, snapshot.positions)
        )
        scores = cosines(snapshot.vectors, vector[None])[:, 0]
        if len(positions) < len(scores):
            scores = scores[positions]
        chosen = best(scores, count)
        found, presence = True, self._presence()
        if presence is not None and isinstance(wanted, str):
            first = snapshot.vectors[positions[chosen[0]]].astype(np.float32)
            found = presence.is_there(vector, float(scores[chosen[0]]), first, len(scores))
        if not (found or show_all):
            return SearchResult(False, [])
        return SearchResult(found, self._matches(positions[chosen], scores[chosen], among))

    def duplicates(self, *, on_done: Callable[[int], object] = lambda _: None) -> list[DuplicateGroup]:
        """Group the files that show the same picture, the best of each group first; nothing is deleted.

        Args:
            on_done: Is called with how many more pictures have been compared with all others.

        Raises:
            ClipitaError: there is no index yet.
        """
        snapshot = self._current()
        files = [file for file in self._store.photos() if file.content < len(snapshot.vectors)]
        held = np.unique(np.array([file.content for file in files], np.int64))
        return find_duplicates(self.photos, files, snapshot.vectors, held, on_done=on_done)

    def label(
        self,
        labels: Iterable[str] | LabelBank,
        *,
        templates: str | Sequence[str] | None = None,
        threshold: float | Mapping[str, float] | None = None,
        min_cosine: float | None = None,
        top_k: int | None = None,
        below: str | None = None,
        since: datetime.date | None = None,
        until: datetime.date | None = None,
    ) -> list[Labelled]:
        """Give each photograph those of the labels that it shows, which may be none; no photograph is read again.

        Args:
            labels: Distinct labels, or a bank of `Model.label_bank` or `examples_bank`.
            templates: As for `Model.label_bank`. A bank has its own in it, and takes no others.
            threshold: The share that a label needs among the background phrases and itself, above 0 and at most 1; or
                those of some labels. None means 0.2, for labels by example 0.7.
            min_cosine: Give instead every label of at least this cosine.
            top_k: Most labels of a photograph, the best.
            below: As for `search`.
            since: Likewise.
            until: Likewise.

        Returns:
            All photographs by their paths, copies too, each with its labels.

        Raises:
            ClipitaError: there is no index yet, or a threshold is no share.
            TextError: a label or a template cannot be used.
            CheckpointError: the bank was made by another model.
        """
        if top_k is not None and top_k < 1:
            raise ClipitaError(f"top_k must be a number from 1 on, or None for all labels, not {top_k!r}.")
        snapshot, model = self._current(), self.model
        bank = labels if isinstance(labels, LabelBank) else model.label_bank(labels, templates=templates)
        if isinstance(labels, LabelBank) and templates is not None:
            raise TextError("a LabelBank has its templates in it: give them to label_bank.")
        if bank.fingerprint != model.fingerprint:
            raise CheckpointError(
                f"the labels were embedded by a model with fingerprint {bank.fingerprint}, and the index's is "
                f"{model.fingerprint}: make the bank with the index's model."
            )
        files = [(photo.key, photo.content) for photo in self._store.photos()]
        among = Filter(below, since, until)
        chosen = self._chosen(snapshot, among)
        held = set(chosen.tolist())
        files = [file for file in files if file[1] in held and among.holds(file[0])]
        thresholds = thresholds_of(bank, threshold)
        found = matches_of(
            snapshot.vectors,
            chosen,
            bank,
            self._background(),
            thresholds=thresholds,
            min_cosine=min_cosine,
            top_k=top_k,
        )
        return labelled_files(files, found)

    def changed_since(self, paths: Iterable[str]) -> set[str]:
        """Return those of some photographs that are gone, or were changed since the index read them."""
        rows = self._store.rows()
        return {path for path in paths if path not in rows or stamp_of(self.photos / path) != rows[path].stamp}

    def examples_bank(self, examples: Mapping[str, Sequence[ImageInput]], *, words: Iterable[str] = ()) -> ExamplesBank:
        """Embed labels by photographs that show them, as `examples_bank` does, told apart from those of this archive.

        Args:
            examples: For each label its photographs.
            words: Labels in words; one that has examples too is known by both.

        Raises:
            ClipitaError: there is no index yet.
            TextError, ImageError: a label or a photograph cannot be used.
        """
        snapshot = self._current()
        return examples_bank(
            self.model,
            examples,
            words=words,
            usual_sentence=self._usual_sentence(),
            usual_photo=_mean(snapshot.vectors, snapshot.positions) if len(snapshot.positions) else None,
        )

    def export(self, path: str | os.PathLike[str]) -> int:
        """Write the vectors of all photographs to a file as `clipita embed` does.

        Args:
            path: Ends in .npz or .parquet.

        Returns:
            How many photographs are in it.

        Raises:
            ClipitaError: it cannot be written.
        """
        rows = self._store.rows()
        settings, vectors = self._store.settings(), self._store.vectors()
        places = {key: row.content for key, row in rows.items() if row.content is not None}
        keys = sorted(places)
        chosen = vectors[np.array([places[key] for key in keys], np.int64)].astype(np.float32)
        write_embeddings(
            Path(path),
            Embeddings(keys, chosen, settings["fingerprint"], settings["model_name"], [rows[k].stamp for k in keys]),
        )
        return len(keys)

    def import_embeddings(self, path: str | os.PathLike[str]) -> int:
        """Take the vectors of a file that `clipita embed` or `export` wrote, so that an update need not make them.

        Photographs are taken that are in the folder under the path that the file has, and were not changed since; all
        others are left to the next update.

        Args:
            path: A .npz or .parquet file.

        Returns:
            How many photographs were taken.

        Raises:
            CheckpointError: it is no such file, or was made by another model.
            ClipitaError: the index cannot be written.
        """
        stored = read_embeddings(Path(path))
        if not self._store.exists():
            Store.create(self.folder, self.settings_of_new())
        settings = self._store.settings()
        if stored.fingerprint != settings["fingerprint"]:
            raise CheckpointError(
                f"{str(path)!r} was made by {stored.model!r} with fingerprint {stored.fingerprint}, and the index by "
                f"{settings['model_name']!r} with {settings['fingerprint']}: their embeddings do not mix."
            )
        taken = 0
        with self._store.writing() as writer:
            hashes = self._store.hashes()
            for key, vector, stamp in zip(stored.keys, stored.vectors, stored.stamps, strict=True):
                file = self.photos / key
                if key in writer.rows or stamp_of(file) != stamp:
                    continue
                digest = hash_of(file)
                if digest not in hashes:
                    hashes[digest] = writer.add(content_of(file, digest, vector))
                writer.put(key, Row(stamp, hashes[digest], None))
                taken += 1
            writer.commit()
        return taken

    def _chosen(self, snapshot: _Snapshot, among: Filter) -> npt.NDArray[np.int64]:
        """Return the positions of the pictures that a filter leaves, of those in the snapshot."""
        if among == Filter():
            return snapshot.positions
        found = self._store.positions(below=among.folder, since=among.start, until=among.end)
        return found[found < len(snapshot.vectors)]  # a writer may have added some in between

    def _presence(self) -> Presence | None:
        """Return what is known of the model's cosines, if anything is."""
        with self._lock:
            if not self._presence_read:
                fingerprint = self._store.settings()["fingerprint"]
                self._known_presence = read_presence(fingerprint.split("-")[0])
                self._presence_read = True
            return self._known_presence

    def _background(self) -> Background:
        """Return the background of the model; what is not known of it is made once and kept in the index."""
        with self._lock:
            if self._kept_background is None:
                presence, model = self._presence(), self.model
                if presence is not None:
                    self._kept_background = presence.background
                else:
                    vectors = self._store.background(len(background_phrases()), model.embed_dim)
                    if vectors is None:
                        vectors = model.encode_text(background_phrases())
                        self._store.keep_background(vectors)
                    self._kept_background = Background(vectors, model.logit_scale)
            return self._kept_background

    def _usual_sentence(self) -> FloatVectors:
        """Return the mean (E,) of many sentences' vectors."""
        return self._background().vectors.mean(axis=0)

    def _matches(self, positions: npt.NDArray[np.int64], scores: FloatVectors, among: Filter) -> list[Match]:
        """Return the files that hold these contents; of copies the one comes first that is in the folder asked for."""
        files: dict[int, list[Photo]] = {}
        for photo in self._store.photos(positions.tolist()):
            files.setdefault(photo.content, []).append(photo)
        matches: list[Match] = []
        for position, score in zip(positions.tolist(), scores, strict=True):
            if position in files:  # or it was removed in this moment
                found = sorted(files[position], key=lambda photo: not among.holds(photo.key))
                first, *others = found
                copies = tuple(photo.key for photo in others)
                matches.append(Match(first.key, float(score), copies, first.taken, first.width, first.height))
        return matches

    def _current(self) -> _Snapshot:
        """Return the state on the disk, read again if it has changed."""
        with self._lock:
            changes = self._store.settings()["changes"]
            if self._snapshot is None or self._snapshot.changes != changes:
                vectors = self._store.vectors()
                positions = self._store.positions()
                self._snapshot = _Snapshot(changes, positions[positions < len(vectors)], vectors)
            return self._snapshot

    def settings_of_new(self, crop: Crop = "auto") -> dict[str, str]:
        """Return what `Store.create` keeps of an index that is made of these photographs with this model."""
        inside = self.folder.parent == self.photos
        return {
            "fingerprint": fingerprint_of(self.model, crop),
            "model": self._model_name,
            "model_name": self.model.name,
            "width": str(self.model.embed_dim),
            "crop": crop,
            "exclude": "",
            "photos": os.pardir if inside else os.path.abspath(self.photos),
        }

    def _check_model(self, crop: Crop | None = None) -> None:
        if self._model is None:
            return
        settings = self._store.settings()
        wanted = fingerprint_of(self._model, crop or _crop(settings["crop"]))
        if settings["fingerprint"] != wanted:
            raise CheckpointError(
                f"the index {str(self.folder)!r} was made by {settings['model_name']!r} with fingerprint "
                f"{settings['fingerprint']}, and now it is {wanted}: their embeddings do not mix. Use that model, or "
                "keep another index elsewhere: --index PLACE."
            )


def _mean(vectors: HalfVectors, positions: npt.NDArray[np.int64]) -> FloatVectors:
    """Return the mean (E,) of the vectors, of 1,000 of them if there are more."""
    some = positions[:: max(1, len(positions) // 1000)]
    return vectors[some].astype(np.float32).mean(axis=0)


def _name_of(model: Model) -> str:
    """Return what `load` made a model of, by what it is pickled as."""
    _, (settings, _) = model.__reduce__()
    return str(dict(settings)["name_or_path"])


def _crop(name: str) -> Crop:
    return cast(Crop, name)
