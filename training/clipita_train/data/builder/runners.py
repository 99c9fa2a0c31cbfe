"""Run tasks in a pool of processes on this machine, or on a Ray cluster. Both write the same files."""

import importlib
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
    """A piece of work that can be pickled, and that makes one file of others, whole or not at all."""

    @property
    def output(self) -> Path:
        """The file that the task makes."""
        ...

    def run(self) -> None:
        """Make the file."""
        ...


class WorkerError(ClipitaError):
    """A worker process was ended from outside, e.g. because memory ran out."""


class Runner(AbstractContextManager["Runner"]):
    """The base of what runs tasks."""

    def run(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Run the tasks in any order, and yield once for each that is done."""
        raise NotImplementedError


class LocalRunner(Runner):
    """A pool of processes on this machine, which end when this process ends.

    Each process has one thread for linear algebra, unless OMP_NUM_THREADS says otherwise. With a thread for each CPU
    the processes would wait for one another: on two busy CPUs, the language of 114 captions a second was found instead
    of 12,000.
    """

    def __init__(self, workers: int) -> None:
        os.environ.setdefault(
            "OMP_NUM_THREADS", "1"
        )  # NumPy reads it at its import, so it counts for new processes only
        # Spawned, not forked: if JAX has been imported, its threads do not exist in a fork.
        self._pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent)

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Run the tasks in the pool, and yield once for each that is done."""
        try:
            for done in as_completed([self._pool.submit(_run, task) for task in tasks]):
                done.result()
                yield
        except BrokenProcessPool:
            raise WorkerError(
                "a process was ended from outside, perhaps because memory ran out. Finished work is kept: run the same "
                "command again, with fewer workers if memory was short"
            ) from None


class RayRunner(Runner):
    """Ray Data's `map_batches` over the tasks, on the cluster that RAY_ADDRESS names, or on a new one on this machine.

    Actors keep the models of a step in memory from task to task. All machines must reach the same folders. If a worker
    or machine is lost, its task runs again elsewhere.
    """

    def __init__(self, workers: int) -> None:
        try:
            self._ray: Any = importlib.import_module("ray")  # by name: most who check the types do not have it
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("--runner ray needs Ray: pip install 'clipita[ray]'", name=error.name) from None
        self.workers = workers
        if not self._ray.is_initialized():
            self._ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else workers)

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def run(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Run the tasks on the cluster, and yield once for each that is done."""
        if not tasks:
            return
        blocks = min(len(tasks), 1000)
        items = self._ray.data.from_items([{"task": task} for task in tasks], override_num_blocks=blocks)
        pool = self._ray.data.ActorPoolStrategy(min_size=1, max_size=self.workers)
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
    """End this process when the one that gives it tasks has ended; a pool would wait for the next task for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
