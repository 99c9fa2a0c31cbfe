"""Questions that come while the model works are answered together, and no more wait than may."""

import threading
from concurrent.futures import wait

import pytest
from support.reference import starlette as _starlette  # type: ignore[attr-defined] # noqa: F401

from clipita.serve.batches import Batches, BusyError


class Slow:
    """A model that waits until it is let go on, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, questions: list[int]) -> list[int | Exception]:
        self.batches.append(questions)
        self.begun.set()
        assert self.go_on.wait(30)
        return [ValueError(str(question)) if question < 0 else 10 * question for question in questions]


def test_what_comes_during_a_batch_is_the_next_batch() -> None:
    slow = Slow()
    batches = Batches[int, int]("test", slow, most=3, max_waiting=9, threads=1)
    first = batches.submit(1)
    assert slow.begun.wait(30)
    others = [batches.submit(number) for number in (2, -3, 4, 5)]
    assert batches.waiting == 4
    slow.go_on.set()
    assert first.result(30) == 10
    wait(others)
    assert slow.batches == [[1], [2, -3, 4], [5]]
    assert others[0].result() == 20
    with pytest.raises(ValueError, match="-3"):
        others[1].result()
    batches.close()


def test_a_full_queue_refuses_and_who_left_is_not_answered() -> None:
    slow = Slow()
    batches = Batches[int, int]("test", slow, most=8, max_waiting=2, threads=1)
    batches.submit(1)
    assert slow.begun.wait(30)
    left, stays = batches.submit(2), batches.submit(3)
    with pytest.raises(BusyError, match="Ask again"):
        batches.submit(4)
    assert left.cancel()
    slow.go_on.set()
    assert stays.result(30) == 30
    assert slow.batches == [[1], [3]]
    batches.close()
    with pytest.raises(BusyError):
        batches.submit(5)


def test_closing_answers_what_waits() -> None:
    slow = Slow()
    batches = Batches[int, int]("test", slow, most=1, max_waiting=9, threads=2)
    futures = [batches.submit(number) for number in range(5)]
    threading.Timer(0.05, slow.go_on.set).start()
    batches.close()
    assert [future.result(0) for future in futures] == [0, 10, 20, 30, 40]


def test_an_error_of_the_model_reaches_everyone_in_the_batch() -> None:
    def broken(_: list[int]) -> list[int | Exception]:
        raise MemoryError

    batches = Batches[int, int]("test", broken, most=4, max_waiting=9, threads=1)
    for _ in range(2):
        with pytest.raises(MemoryError):
            batches.submit(1).result(30)
    batches.close()
