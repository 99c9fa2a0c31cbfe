"""Embed images in batches: threads decode them ahead of the tower, and unreadable ones do not stop it."""

import contextlib
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import cast

import numpy as np

from clipita.backends.backend import Backend
from clipita.errors import BackendError, ImageError
from clipita.images.pixels import Crop, ImageInput, Preprocessing, describe, load_seen, load_squares
from clipita.images.seen import Seen
from clipita.system.arrays import FloatArray, Pixels
from clipita.system.memory import give_back

FEW = 32  # images or texts: after this many or fewer, giving memory back costs more (2 to 3 ms) than it brings


class ImageEncoder:
    """Embed images square by square. Threads may share one encoder.

    Args:
        backend: The engine that runs the tower.
        preprocessing: How an image becomes the pixels that the tower reads.
        decode_threads: How many threads decode files ahead of the tower.
        exact: As for `load`.
    """

    def __init__(self, backend: Backend, preprocessing: Preprocessing, *, decode_threads: int, exact: bool) -> None:
        self._backend, self._preprocessing = backend, preprocessing
        self._decode_threads, self._exact = decode_threads, exact

    def all(self, images: ImageInput | Iterable[ImageInput], crop: Crop, batch_size: int) -> list[FloatArray]:
        """Embed one image or many, and stop at the first that cannot be read.

        Returns:
            For each image (T, E): the embeddings of the T squares that the tower sees of it.

        Raises:
            ImageError: An image cannot be read.
        """
        if is_one_image(images):
            image = cast(ImageInput, images)
            return [self._backend.encode_pixels(self._squares(image, describe(image), crop))]
        found: list[FloatArray] = []
        # An error closes the generator at once, which otherwise kept its threads for as long as the traceback exists.
        many = cast(Iterable[ImageInput], images)
        with contextlib.closing(self.iter(many, crop, batch_size)) as results:
            for _, squares in results:
                if isinstance(squares, ImageError):
                    raise squares
                found.append(squares)
        return found

    def seen(self, image: ImageInput, crop: Crop) -> Seen:
        """Return the squares that the tower sees of one image, and what part of it each shows.

        Raises:
            ImageError: It cannot be read.
        """
        return load_seen(image, self._preprocessing, crop=crop, name=describe(image), exact=self._exact)

    def iter(
        self, images: Iterable[ImageInput], crop: Crop, batch_size: int
    ) -> Generator[tuple[str | int, FloatArray | ImageError], None, None]:
        """Yield for each image its key, and its (T, E) embeddings or the error that it met."""
        process = os.getpid()
        source = enumerate(images)
        waiting: deque[tuple[str | int, Future[Pixels | ImageError]]] = deque()
        pool = ThreadPoolExecutor(self._decode_threads, thread_name_prefix="clipita-decode")

        def read_ahead() -> None:
            for index, image in islice(source, 2 * batch_size - len(waiting)):
                if isinstance(image, str | os.PathLike | bytes):
                    future = pool.submit(self._decode, image, index, crop)
                else:
                    future = Future[Pixels | ImageError]()
                    future.set_result(self._decode(image, index, crop))
                waiting.append((_key(image, index), future))

        count = 0
        try:
            read_ahead()
            while waiting:
                if os.getpid() != process:
                    raise BackendError(
                        "iter_encode_image was begun in the parent of this process, and its threads are there. Call it "
                        "anew after the fork."
                    )
                taken = [waiting.popleft() for _ in range(min(batch_size, len(waiting)))]
                count += len(taken)
                decoded = [(key, future.result()) for key, future in taken]
                read_ahead()  # gives the threads work for the time that the tower runs
                yield from self._encode_decoded(decoded)
                del taken, decoded  # 150 kB an image, which could not be given back to the system while referred to
        finally:
            pool.shutdown(cancel_futures=True)
            if count > FEW:
                give_back()

    def _decode(self, image: ImageInput, index: int, crop: Crop) -> Pixels | ImageError:
        try:
            return self._squares(image, describe(image, index), crop)
        except ImageError as error:
            return error

    def _squares(self, image: ImageInput, name: str, crop: Crop) -> Pixels:
        """Return the squares that the tower sees of an image, (T, S, S, 3); T is above 1 only in tiles."""
        return load_squares(image, self._preprocessing, crop=crop, name=name, exact=self._exact)

    def _encode_decoded(
        self, decoded: list[tuple[str | int, Pixels | ImageError]]
    ) -> Iterator[tuple[str | int, FloatArray | ImageError]]:
        squares = [item for _, item in decoded if not isinstance(item, ImageError)]
        embeddings = self._backend.encode_pixels(np.concatenate(squares)) if squares else None
        start = 0
        for key, item in decoded:
            if isinstance(item, ImageError):
                yield key, item
            else:
                yield key, cast(FloatArray, embeddings)[start : start + len(item)]
                start += len(item)


def mean_direction(embeddings: FloatArray) -> FloatArray:
    """Average the (T, E) embeddings of an image's squares to (E,) of unit norm; a single one stays as it is."""
    if len(embeddings) == 1:
        return embeddings[0]
    mean = embeddings.mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), np.finfo(np.float32).tiny)


def is_one_image(images: object) -> bool:
    """Tell one image from many. An object that is neither counts as one, and is refused when it is read."""
    one = isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | np.ndarray) or hasattr(images, "read")
    return one or not isinstance(images, Iterable)


def _key(image: ImageInput, index: int) -> str | int:
    return os.fsdecode(image) if isinstance(image, str | os.PathLike) else index
