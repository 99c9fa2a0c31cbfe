"""Gather the questions of many clients into batches for a model, in a queue of bounded length."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from clipita.errors import ClipitaError

Q = TypeVar("Q")
A = TypeVar("A")


class BusyError(ClipitaError):
    """More is waiting than the server takes."""


class Batches(Generic[Q, A]):
    """Answers questions by a function of many: while it runs, those that come gather for its next run.

    Nothing waits for a batch to become full, so that a single client is answered at once.

    Args:
        name: Of its threads.
        answer: Answers a list of questions in their order; an answer may be an exception.
        most: The most questions in one batch.
        max_waiting: The most that wait.
        threads: How many batches run at once: with two, files are decoded while the tower runs.
    """

    def __init__(
        self, name: str, answer: Callable[[list[Q]], list[A | Exception]], *, most: int, max_waiting: int, threads: int
    ) -> None:
        self._answer, self._most, self._max_waiting = answer, most, max_waiting
        self._waiting: deque[tuple[Q, Future[A]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.batches = self.answered = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"clipita-{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Count the questions that wait."""
        return len(self._waiting)

    def submit(self, question: Q) -> "Future[A]":
        """Queue a question.

        Raises:
            BusyError: As many wait as may.
        """
        future: Future[A] = Future()
        with self._changed:
            if self._closed or len(self._waiting) >= self._max_waiting:
                raise BusyError("too much is waiting already. Ask again in a moment.")
            self._waiting.append((question, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Answer what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                self.batches += 1
                self.answered += len(taken)
            # Who is gone is left out; from here on nobody can cancel.
            asked = [(question, future) for question, future in taken if future.set_running_or_notify_cancel()]
            if not asked:
                continue
            try:
                answers = self._answer([question for question, _ in asked])
            except Exception as error:  # which is told to whoever asked
                answers = [error] * len(asked)
            for (_, future), answer in zip(asked, answers, strict=True):
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
