"""Define the command `embed`, which embeds the photographs of a folder into one file."""

import contextlib
import importlib.util
import shutil
import signal
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from clipita.cli.options import Unusable, common_options, crop_option, echo, print_json, visible
from clipita.images.pixels import Crop
from clipita.loading.load import load
from clipita.search.embed_folder import Summary, embed_folder, fingerprint_of

# Two batches are decoded ahead, at 150 kB an image: 1.2 GB.
_LARGEST_BATCH = 4096


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="A .npz or .parquet file."
)
@click.option("--batch-size", "-b", type=click.IntRange(1, _LARGEST_BATCH), default=32, show_default=True)
@click.option("--overwrite", is_flag=True, help="Delete the output first, and what is left of an unfinished run.")
@crop_option
@common_options
def embed(folder: Path, output: Path, batch_size: int, overwrite: bool, crop: Crop, model: str, as_json: bool) -> None:
    """Embed every photograph below FOLDER into one file.

    Give the same command again to go on with a run that was stopped, and after photographs were added, replaced or
    deleted: only those that are new, or changed in size or time, are embedded, and those that are gone leave the file.

    Hidden files, thumbnails and bins of other programs, and formats that are not read are left aside, and counted at
    the end. Links to folders are followed, each folder once.
    """
    _check_output(output)
    loaded = load(model)
    if overwrite:
        output.unlink(missing_ok=True)
        shutil.rmtree(output.with_name(output.name + ".partial"), ignore_errors=True)
    progress = _Progress()
    try:
        with progress, _signals_interrupt():
            summary = embed_folder(
                loaded,
                folder,
                output,
                crop=crop,
                batch_size=batch_size,
                on_start=progress.start,
                on_done=progress.advance,
                on_failed=progress.fail,
            )
    except KeyboardInterrupt as stopped:
        with contextlib.suppress(OSError):  # the signal may mean that the terminal is gone
            echo("Interrupted. Give the same command again, without --overwrite, to go on.", err=True)
        number = stopped.number if isinstance(stopped, _Stopped) else signal.SIGINT
        raise click.exceptions.Exit(128 + number) from None

    if as_json:
        print_json(
            output=str(output),
            images=summary.total,
            new=summary.new,
            changed=summary.changed,
            gone=summary.gone,
            failed=[{"key": key, "error": error} for key, error in summary.failed.items()],
            left_aside=summary.found.counts(),
            model=loaded.name,
            fingerprint=fingerprint_of(loaded, crop),
        )
    else:
        echo(f"{output}: {_in_words(summary)}")
    if left_aside := summary.found.describe():
        echo(left_aside, err=True)
    if summary.failed:
        raise click.exceptions.Exit(1)


def _in_words(summary: Summary) -> str:
    changed = f", {summary.changed} changed" if summary.changed else ""
    gone = f", {summary.gone} gone" if summary.gone else ""
    return f"{summary.total} images, {summary.new} of them new{changed}; {len(summary.failed)} failed{gone}"


def _check_output(output: Path) -> None:
    """Check, before any work is done, that the output can be written at the end."""
    if output.suffix not in (".npz", ".parquet"):
        raise click.BadParameter(f"{str(output)!r} must end in .npz or .parquet.", param_hint="'--output'")
    if output.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise Unusable("a .parquet file needs pyarrow: pip install 'clipita[parquet]'. Or write a .npz file.")
    if not output.parent.is_dir():
        raise Unusable(f"{str(output.parent)!r} is not a folder. Make it first: mkdir -p {str(output.parent)!r}")


class _Progress:
    """Show a bar where standard error is a terminal, and always the images that failed."""

    def __init__(self) -> None:
        self._bar: Any = None

    def start(self, total: int, done: int) -> None:
        self._bar = tqdm(total=total, initial=done, unit=" images", miniters=1, disable=None, file=sys.stderr)

    def advance(self, count: int) -> None:
        with contextlib.suppress(OSError):  # a terminal that is gone does not stop the run
            self._bar.update(count)

    def fail(self, key: str, error: str) -> None:
        with contextlib.suppress(OSError):
            self._bar.write(visible(f"{key} {error}"), file=sys.stderr)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()


class _Stopped(KeyboardInterrupt):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def _signals_interrupt() -> Generator[None]:
    """Let the signals that end a process (`docker stop`, a closed terminal) interrupt it as Ctrl-C does.

    The work that is done is then kept. Only the first signal interrupts: systemd sends SIGHUP after SIGTERM, and the
    second must not stop the writing that the first began. A second Ctrl-C does stop it. A signal that is ignored
    already, such as SIGHUP below `nohup`, stays ignored.
    """
    taken: dict[int, Any] = {}

    def stop(number: int, _: Any) -> None:
        for other in taken:
            signal.signal(other, signal.default_int_handler if other == signal.SIGINT else signal.SIG_IGN)
        raise _Stopped(number)

    if threading.current_thread() is threading.main_thread():  # Python sets handlers in this thread alone
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):  # Windows sends the last when a console is closed
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                taken[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, before in taken.items():
            signal.signal(number, before)
