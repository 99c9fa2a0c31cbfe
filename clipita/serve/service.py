"""Define `Service`: a model that many clients ask at once, and the archives that they search."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from clipita.errors import ClipitaError, ImageTooLargeError
from clipita.images.facts import PhotoFacts, read_facts
from clipita.model import Model
from clipita.serve.archives import Archives
from clipita.serve.batches import Batches, BusyError
from clipita.serve.metrics import Metrics
from clipita.serve.settings import Settings
from clipita.system.arrays import FloatArray
from clipita.system.cpus import usable_cpus
from clipita.text.tokenizer import check_text

P = ParamSpec("P")
R = TypeVar("R")

_IMAGES = 16  # in one batch: half of what is waiting at 32 clients, so that two batches share the work
_TEXTS = 16  # in one batch: half of what is waiting at 32 clients
_MAX_TEXT = 20_000  # characters; towers read some dozens of words


class Service:
    """Answers for one model. Its methods are called in the server's one thread, and run the model in others."""

    def __init__(self, model: Model, settings: Settings, archives: Archives) -> None:
        for name, width in settings.aliases.items():
            if width < model.embed_dim:
                raise ClipitaError(
                    f"{name!r} has vectors of {width} numbers, and {model.name!r} has {model.embed_dim}: zeros can be "
                    "added, nothing can be left out. Choose a wider alias."
                )
        self.model, self.settings, self.archives, self.metrics = model, settings, archives, Metrics()
        waiting = settings.max_waiting
        self._images = Batches[bytes, FloatArray](
            "images", self._embed_images, most=_IMAGES, max_waiting=waiting, threads=2
        )
        self._texts = Batches[str, FloatArray](
            "texts", self._embed_texts, most=_TEXTS, max_waiting=waiting, threads=min(usable_cpus(), 8)
        )
        self._jobs = ThreadPoolExecutor(max(2, usable_cpus()), thread_name_prefix="clipita-job")
        self._begun = 0

    def start(self) -> None:
        """Begin to bring the archives up to date."""
        self.archives.start()

    def stop(self) -> None:
        """Finish what was begun, and end."""
        self.archives.stop()
        self._images.close()
        self._texts.close()
        self._jobs.shutdown()

    async def embed_image(self, data: bytes) -> tuple[FloatArray, PhotoFacts]:
        """Embed an encoded picture, and tell its size.

        Raises:
            ImageError: It cannot be read.
            ImageTooLargeError: It has too many pixels.
            BusyError: Too much is waiting.
        """
        facts = await self.checked_image(data)
        return await asyncio.wrap_future(self._images.submit(data)), facts

    async def checked_image(self, data: bytes) -> PhotoFacts:
        """Read the head of a picture, and refuse one that is too large. Raises as `embed_image`."""
        facts = await self.in_thread(read_facts, data, "the picture")
        if facts.width * facts.height > self.settings.max_pixels:
            raise ImageTooLargeError(
                f"the picture has {facts.width} x {facts.height} pixels, and at most {self.settings.max_pixels:,} are "
                "read. Send a smaller one."
            )
        return facts

    async def embed_texts(self, texts: Sequence[str]) -> list[FloatArray]:
        """Embed texts.

        Raises:
            TextError: One cannot be used.
            BusyError: Too much is waiting.
        """
        for number, text in enumerate(texts):
            check_text(text, f"texts[{number}]" if len(texts) > 1 else "the text")
        futures = [self._texts.submit(text[:_MAX_TEXT]) for text in texts]
        return list(await asyncio.gather(*map(asyncio.wrap_future, futures)))

    async def in_thread(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function in one of a few threads.

        Raises:
            BusyError: Too much is waiting.
        """
        if self._begun >= self.settings.max_waiting:
            raise BusyError("too much is waiting already. Ask again in a moment.")
        self._begun += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._jobs, lambda: function(*args, **kwargs))
        finally:
            self._begun -= 1

    def width_of(self, name: str) -> int | None:
        """Return the width of vectors under a model's name, or None of a name that this service does not answer to."""
        if name == self.model.name:
            return self.settings.aliases.get(name, self.model.embed_dim)
        return self.settings.aliases.get(name)

    def gauges(self) -> dict[str, float]:
        """Return what `Metrics.text` measures now."""
        return {
            'clipita_waiting{queue="images"}': self._images.waiting,
            'clipita_waiting{queue="texts"}': self._texts.waiting,
            'clipita_waiting{queue="others"}': self._begun,
            'clipita_batches{queue="images"}': self._images.batches,
            'clipita_batches{queue="texts"}': self._texts.batches,
            'clipita_embedded{queue="images"}': self._images.answered,
            'clipita_embedded{queue="texts"}': self._texts.answered,
        }

    def _embed_images(self, images: list[bytes]) -> list[FloatArray | Exception]:
        with contextlib.closing(self.model.iter_encode_image(images, batch_size=_IMAGES)) as results:
            found: list[FloatArray | Exception] = []
            for number, (_, embedding, error) in enumerate(results):
                if embedding is not None:
                    found.append(embedding)
                elif error is not None:  # who sent the picture knows nothing of the others in the batch
                    found.append(type(error)(str(error).replace(f"images[{number}]", "the picture", 1)))
            return found

    def _embed_texts(self, texts: list[str]) -> list[FloatArray | Exception]:
        return list(self.model.encode_text(texts, batch_size=_TEXTS, on_truncate="ignore"))
