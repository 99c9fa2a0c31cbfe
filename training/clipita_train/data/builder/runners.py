"""Where tasks run: in a pool of processes here, or on a Ray cluster. What comes out is the same files."""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from clipita.errors import ClipitaError


class Task(Protocol):
    """Something that can be pickled, and makes one file, whole or not at all, of others."""

    @property
    def output(self) -> Path:
        """The file."""
        ...

    def run(self) -> None:
        """Makes it."""
        ...


class WorkerError(ClipitaError):
    """A process that was working was ended from outside, e.g. for want of memory."""


class Runner(AbstractContextManager["Runner"]):
    """Runs tasks in any order; yields once for each that is done."""

    def run(self, tasks: Sequence[Task]) -> Iterator[None]:
        raise NotImplementedError


class LocalRunner(Runner):
    """A pool of processes on this machine, which end when this one does.

    Each has one thread for linear algebra, unless OMP_NUM_THREADS says otherwise: with as many as there are CPUs they
    would wait for one another (on two busy CPUs 114 captions a second had their language told instead of 12,000).
    """

    def __init__(self, workers: int) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when a process imports NumPy; this one has
        # Not forked: JAX's threads, where the command has imported it, do not live on in a fork.
        self._pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent)

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, tasks: Sequence[Task]) -> Iterator[None]:
        try:
            for done in as_completed([self._pool.submit(_run, task) for task in tasks]):
                done.result()
                yield
        except BrokenProcessPool:
            raise WorkerError(
                "a process was ended from outside, perhaps for want of memory. What was done is kept: run the same "
                "command again, with fewer workers if need be"
            ) from None


class RayRunner(Runner):
    """Ray Data's `map_batches` over the tasks, on the cluster that RAY_ADDRESS names or a new one on this machine.

    Actors keep the models of their steps from task to task. All of them have to reach the same folders. A task whose
    worker or machine is lost runs again elsewhere.
    """

    def __init__(self, workers: int) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("--runner ray needs Ray: pip install 'clipita[ray]'", name=error.name) from None
        self.workers = workers
        if not ray.is_initialized():
            ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else workers)

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()

    def run(self, tasks: Sequence[Task]) -> Iterator[None]:
        import ray

        if not tasks:
            return
        items: Any = ray.data.from_items([{"task": task} for task in tasks], override_num_blocks=min(len(tasks), 1000))
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=self.workers)
        for _ in items.map_batches(_Actor, batch_size=1, compute=pool).iter_rows():
            yield


class _Actor:
    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for task in batch["task"]:
            _run(task)
        return {"done": [True] * len(batch["task"])}


def _run(task: Task) -> None:
    if not task.output.exists():
        task.run()


def _end_with_parent() -> None:
    """A pool waits for its next task for ever, even when the process that gives it tasks has been killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
