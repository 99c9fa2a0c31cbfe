"""Define the command `serve`: a page that searches folders, and a service for other programs."""

import logging
import secrets
from pathlib import Path

import click

from clipita import __version__
from clipita.cli.options import Unusable, echo
from clipita.loading.load import DEFAULT_MODEL, load
from clipita.locale.language import phrase
from clipita.search.index import Index


@click.command(short_help="Serve a page and an API over folders of photographs.")
@click.argument(
    "folders", nargs=-1, metavar="[FOLDERS]...", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--index",
    "place",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the index of the one FOLDER here, and not in its hidden folder .clipita.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(0, 65535), default=3003, show_default=True, help="0 takes a free one.")
@click.option(
    "--token",
    envvar="CLIPITA_TOKEN",
    show_envvar=True,
    help="What a client must know, at least 16 characters. Without it, one is made where other machines can connect.",
)
@click.option(
    "--allow-host", "hosts", multiple=True, metavar="NAME", help="A further name of this machine; may be repeated."
)
@click.option(
    "--immich",
    is_flag=True,
    help="Let Immich ask for vectors without the token, which it cannot send.",
)
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    metavar="NAME[=WIDTH]",
    help="Answer to another model's name, with zeros up to its width: ViT-B-32__openai. May be repeated.",
)
@click.option(
    "--max-upload", type=click.IntRange(1, 1024), default=32, show_default=True, metavar="MB", help="Most of a request."
)
@click.option(
    "--max-waiting", type=click.IntRange(1, 65536), default=256, show_default=True, help="Most that waits in a queue."
)
@click.option(
    "--patience",
    type=click.IntRange(1, 3600),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="How long a client may take to send a request.",
)
@click.option(
    "--model",
    "-m",
    envvar="CLIPITA_MODEL",
    show_envvar=True,
    help="An embedded model, a folder, or a name on the hub; without it the one that the first index was made with.",
)
def serve(
    folders: tuple[Path, ...],
    place: Path | None,
    host: str,
    port: int,
    token: str | None,
    hosts: tuple[str, ...],
    immich: bool,
    aliases: tuple[str, ...],
    max_upload: int,
    max_waiting: int,
    patience: int,
    model: str | None,
) -> None:
    """Serve a page that searches FOLDERS, names what a photograph shows, and shows where.

    \b
        clipita serve foto

    New photographs of the folders are embedded while it runs. Other programs may ask too: Immich, clients of OpenAI's
    embeddings, Prometheus. The documentation has all of it. Nobody but this machine is let in, unless --host says so.
    """  # noqa: D301 (click reads the character \b)
    try:
        from clipita.backends.onnx import let_threads_sleep
        from clipita.serve.archives import Archives
        from clipita.serve.run import run
        from clipita.serve.service import Service
        from clipita.serve.settings import Settings, is_loopback, read_alias
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "clipita":  # our own mistake, which no extra mends
            raise
        message = phrase("there is no module {name!r}: pip install 'clipita[serve]'", name=error.name)
        raise Unusable(message) from error
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(32)
        echo(phrase("token: {token}", token=token), err=True)
    settings = Settings(
        host=host,
        port=port,
        token=token,
        hosts=hosts,
        open_to_immich=immich,
        aliases=dict(map(read_alias, aliases)),
        max_upload=max_upload << 20,
        max_waiting=max_waiting,
        body_seconds=patience,
    )
    if place is not None and len(folders) != 1:
        raise Unusable(phrase("--index is of one folder, and {count} are given.", count=len(folders)))
    let_threads_sleep()
    opened = [Index.open(folder, index=place, model=model) for folder in folders]
    loaded = opened[0].model if opened else load(model or DEFAULT_MODEL)
    indexes = [Index.open(folder, index=place, model=loaded) for folder in folders]
    run(Service(loaded, settings, Archives(indexes)), __version__, on_start=lambda address: echo(address))
