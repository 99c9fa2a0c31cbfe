"""Define the command `clipita`.

Its exit codes are 0 for done, 1 for done except for some images, 2 for not done, and 128 + n for stopped by signal n.
"""

import contextlib
import copy
import errno
import io
import itertools
import logging
import os
import re
import sys
import warnings
from collections.abc import Generator
from typing import Any

import click

from clipita import __version__
from clipita.cli.duplicates import duplicates
from clipita.cli.embed import embed
from clipita.cli.index import index
from clipita.cli.label import label
from clipita.cli.locate import locate
from clipita.cli.models import convert, info, models
from clipita.cli.options import Unusable, echo, visible
from clipita.cli.search import search
from clipita.cli.serve import serve
from clipita.cli.zero_shot import zero_shot
from clipita.errors import ClipitaError
from clipita.images.photo_files import is_picture_name
from clipita.locale.commands import translated
from clipita.locale.language import chosen_language, phrase, speaking
from clipita.locale.recognition import recognized


class Commands(click.Group):
    """Speak the user's language, and show the errors of clipita and of the system on one line, not as tracebacks."""

    def main(self, *arguments: Any, **named: Any) -> Any:
        """Run the command line as click does, in the language that the environment asks for."""
        with speaking(chosen_language(os.environ)):
            return super(Commands, translated(self, phrase)).main(*arguments, **named)

    def make_context(self, *arguments: Any, **named: Any) -> click.Context:
        """Parse the command line as click does, with visible mistakes."""
        with _visible_mistakes():
            return super().make_context(*arguments, **named)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command as click does, and refuse files that would be read as options."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            _refuse_file_as_option(command.get_params(ctx), rest)
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and show its errors on one line."""
        try:
            with _visible_mistakes():
                return super().invoke(ctx)
        except ClipitaError as error:
            raise Unusable(recognized(str(error))) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of the output is gone, which click handles
                raise
            raise Unusable(recognized(str(error))) from error


@contextlib.contextmanager
def _visible_mistakes() -> Generator[None]:
    """Write control characters visibly where click's errors quote the user's words, so that no terminal obeys them."""
    try:
        yield
    except click.UsageError as error:
        message = error.format_message()
        if (shown := visible(message, keep="\n\t")) == message:
            raise
        raise click.UsageError(shown, ctx=error.ctx) from error


def _refuse_file_as_option(parameters: list[click.Parameter], words: list[str]) -> None:
    """Refuse a file whose name begins with "-": click would read options in it, such as -t in -topo.jpg.

    Raises:
        Unusable: One of the words is such a file, or is named like an image.
    """
    options = [parameter for parameter in parameters if isinstance(parameter, click.Option)]
    names = {name for option in options for name in option.opts}
    with_value = {name for option in options if not option.is_flag for name in option.opts}
    for before, word in itertools.pairwise(["", *words]):
        if word == "--":
            return
        if before in with_value:  # the word is the value of the option before it
            continue
        is_file = re.match("--?[^-]", word) and word not in names and "=" not in word and os.path.exists(word)
        if is_file or (re.match("-[^-]", word) and is_picture_name(word)):
            message = (
                "{word!r} begins with '-' and is read as options. Write {path!r}, or put -- before the first file."
            )
            raise Unusable(phrase(message, word=word, path=os.path.join(".", word)))


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning without its place in the code."""
    echo(phrase("Warning: {message}", message=recognized(str(message))), err=True)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        shown = copy.copy(record)
        shown.msg, shown.args, shown.levelname = recognized(record.getMessage()), None, phrase(record.levelname)
        return visible(super().format(shown), keep="\n\t")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="clipita")
@click.pass_context
def main(context: click.Context) -> None:
    """Italian text and images in one space.

    \b
        clipita zero-shot foto.jpg cane gatto
        clipita index foto
        clipita search "una spiaggia al tramonto" --in foto

    All commands work offline with the model inside the package. Those that print take --json, and those that run a
    model --model.
    """  # noqa: D301 (click reads the character \b)
    context.with_resource(warnings.catch_warnings())
    warnings.simplefilter("always", UserWarning)
    warnings.showwarning = show_warning
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
    # In a pipe that is not UTF-8 (Windows) missing characters are written as \U0001f431, as in standard error.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportUnknownMemberType]


for command in (index, search, label, duplicates, zero_shot, locate, serve, embed, info, models, convert):
    main.add_command(command)
