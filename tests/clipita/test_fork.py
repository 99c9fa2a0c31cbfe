"""A process that forks after it has used a model: gunicorn with preload, multiprocessing's default on Linux."""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import PHOTOS

import clipita

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    # Python 3.12 warns of any fork beside threads; what happens after is what is tested here.
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
    # Nor does JAX like it, which other tests of the same process may have imported.
    pytest.mark.filterwarnings("ignore:.*os.fork.. was called.*:RuntimeWarning"),
]
PHOTO = PHOTOS / "gatto.jpg"


@pytest.fixture(scope="module")
def model() -> clipita.Model:
    model = clipita.load()
    model.encode_image([PHOTO] * 5)
    model.encode_text("un gatto")
    return model


def in_a_fork(action: Callable[[], object], *, seconds: float = 20) -> int:
    """Run `action` in a forked child that then ends as a program does; return its exit code, or fail if it hangs."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            sys.exit(0)
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        # pytest must not go on in the child: what `sys.exit` would do to the model is tested by whole programs below.
        os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail(f"the child hangs: not ended after {seconds} s")


@pytest.mark.slow
def test_a_child_answers_as_its_parent_does(model: clipita.Model) -> None:
    image, text = model.encode_image(PHOTO), model.encode_text("un cane")

    def ask() -> None:
        np.testing.assert_allclose(model.encode_image([PHOTO] * 9)[8], image, atol=1e-5)
        np.testing.assert_allclose(model.encode_text("un cane"), text, atol=1e-5)

    assert in_a_fork(ask) == 0
    np.testing.assert_array_equal(model.encode_image(PHOTO), image)


@pytest.mark.slow
def test_a_child_may_fork_again(model: clipita.Model) -> None:
    def ask_in_a_grandchild() -> None:
        model.encode_text("un gatto")
        sys.exit(in_a_fork(lambda: model.encode_text("un cane")))

    assert in_a_fork(ask_in_a_grandchild) == 0


def test_a_child_is_free_of_a_lock_that_was_held_when_it_was_forked(model: clipita.Model) -> None:
    towers = model._backend._image, model._backend._text  # pyright: ignore[reportAttributeAccessIssue]
    with towers[0]._lock, towers[1]._lock, clipita.default_model._lock, clipita.images.decode._warning_filters:
        assert in_a_fork(lambda: (model.zero_shot(PHOTO, ["gatto", "cane"]), clipita.encode_text("un gatto"))) == 0


def test_an_iterator_that_the_parent_began_says_so_in_a_child(model: clipita.Model) -> None:
    results = model.iter_encode_image([PHOTO] * 12, batch_size=2)
    next(results)

    def go_on() -> None:
        with pytest.raises(clipita.BackendError, match="begun in the parent"):
            list(results)

    assert in_a_fork(go_on) == 0
    assert len(list(results)) == 11


PROGRAMS = {
    "ends": "sys.exit(0)",
    "drops the model": "del model; gc.collect(); sys.exit(0)",
    "asks and ends": "model.encode_image([photo] * 5); model.encode_text('un cane'); sys.exit(0)",
    "asks the default model": "clipita.zero_shot(photo, ['gatto', 'cane']); sys.exit(0)",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", PROGRAMS)
def test_a_forked_program_ends(what: str) -> None:
    import subprocess

    code = f"""
import clipita, gc, os, sys
photo = {str(PHOTO)!r}
model = clipita.load()
model.encode_image(photo), model.encode_text("un gatto"), clipita.encode_text("un gatto")
if (child := os.fork()) == 0:
    {PROGRAMS[what]}
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
model.encode_image(photo)
"""
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], check=True, timeout=60)


def embed(path: Path) -> list[float]:
    return clipita.encode_image(path).tolist()


@pytest.mark.slow
def test_multiprocessing_by_fork(model: clipita.Model) -> None:
    expected = clipita.encode_image(PHOTO)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found in pool.map(embed, [PHOTO] * 4):
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_flax_says_that_it_cannot_go_on_in_a_child() -> None:
    model = clipita.load(backend="flax")

    def ask() -> None:
        for encode in (lambda: model.encode_text("un gatto"), lambda: model.encode_image(PHOTO)):
            with pytest.raises(clipita.BackendError, match="spawn"):
                encode()

    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork.*JAX", category=RuntimeWarning)
        assert in_a_fork(ask) == 0
