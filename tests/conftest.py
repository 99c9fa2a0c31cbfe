"""Give the tests what many of them need: a tiny bundle, a folder of photographs, the command `clipita`."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from support import reference
from support.tiny_bundle import tiny_config, tiny_files

from clipita.bundles.bundle import write_bundle
from clipita.cli.main import main

# A loaded machine is no failure: examples have no time limit.
hypothesis.settings.register_profile("clipita", deadline=None)
hypothesis.settings.load_profile("clipita")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="leave out slow tests and those that compare with PyTorch")


def pytest_configure(config: pytest.Config) -> None:
    # What models keep on this machine is kept here, for this process and those that it starts.
    home = tempfile.TemporaryDirectory(prefix="clipita-tests-")
    config.add_cleanup(home.cleanup)
    os.environ["HF_HOME"] = home.name
    os.environ["CLIPITA_LANG"] = "en"  # what commands print is compared, whatever the locale
    if config.getoption("fast"):
        reference.left_out |= reference.LARGE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(
        "One test by itself: .venv-check/bin/python -m pytest tests/clipita/text/test_spelling.py -k answer"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("fast"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)


@pytest.fixture(scope="session")
def shared_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny bundle; not to be changed."""
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    write_bundle(folder, config=tiny_config(), files=tiny_files())
    return folder


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Path:
    """The folder of a tiny bundle of the test's own."""
    folder = tmp_path / "tiny"
    write_bundle(folder, config=tiny_config(), files=tiny_files())
    return folder


@pytest.fixture
def strict_types() -> Iterator[None]:
    """JAX raises where an operation would mix types or ranks without saying so: what we write does not."""
    import jax

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="module")
def compile_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One cache of compiled programs for all runs of a file: they are the same few, compiled again and again.

    Its settings are in the environment too, for other processes, and are what the fixture gives.
    """
    import jax

    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name.upper(), str(value))
        yield {name.upper(): str(value) for name, value in settings.items()}
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images, one of them in a folder below, and what is not to be embedded."""
    folder = tmp_path / "foto"
    (folder / "mare").mkdir(parents=True)
    for index, name in enumerate(["b.png", "a.JPG", "mare/città.png"]):
        Image.new("RGB", (20, 10 + index), (80 * index, 30, 200)).save(folder / name)
    (folder / "note.txt").write_text("non una foto")
    (folder / ".nascosta.png").write_bytes(b"")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.png").write_bytes(b"")
    return folder


@pytest.fixture
def run(shared_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`clipita` with the tiny bundle as its model; an error that is no refusal fails the test."""
    monkeypatch.setenv("CLIPITA_MODEL", str(shared_bundle))

    def run(*arguments: object, stdin: bytes | None = None) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run
