"""`clipita-train evaluate`: the two evaluations, by zero-shot labels and by retrieval."""

import json
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

import click

import clipita
from clipita.errors import ClipitaError
from training.data.concepts import load_ontology
from training.data.manifest import read_manifest
from training.evaluate import comparison, zero_shot
from training.evaluate.captions import FORMATS, read_captions

Folder = click.Path(path_type=Path, file_okay=False)
Out = click.Path(path_type=Path)


@click.group()
def evaluate() -> None:
    """Measure a model as its users load it."""


@evaluate.command("zeroshot")
@click.option("--model", default="clipita-mini", help="An embedded model, a folder, or a name on the hub.")
@click.option("--root", type=Folder, required=True, help="Holds the clones, as OWNER/NAME.")
@click.option("--work", type=Folder, required=True, help="Holds manifest.jsonl.")
@click.option("--out", type=Out, help="Also write OUT.md and OUT.json.")
def zeroshot_command(model: str, root: Path, work: Path, out: Path | None) -> None:
    """Zero-shot accuracy on every development set of the manifest."""
    try:
        loaded = clipita.load(model)
        scores = zero_shot.evaluate(loaded, read_manifest(work / "manifest.jsonl"), root, load_ontology())
    except (FileNotFoundError, ValueError, ClipitaError) as error:
        raise click.ClickException(str(error)) from None
    facts = {"model": loaded.name, "fingerprint": loaded.fingerprint, "templates": loaded.templates}
    _write(zero_shot.markdown(scores), {**facts, "scores": [score.to_json() for score in scores]}, out)


def _captions(_: click.Context, __: click.Parameter, text: str) -> tuple[Path, str | None]:
    """FILE[:FORMAT]; a colon within a file's name is no format."""
    name, colon, format = text.rpartition(":")
    path, chosen = (Path(name), format) if colon and format in FORMATS else (Path(text), None)
    if not path.is_file():
        raise click.BadParameter(f"no file at {path}; expected FILE or FILE:FORMAT, with one of {', '.join(FORMATS)}")
    return path, chosen


@evaluate.command("retrieval")
@click.option("--captions", metavar="FILE[:FORMAT]", callback=_captions, required=True, help="Captions as published.")
@click.option(
    "--images", type=click.Path(path_type=Path, file_okay=False, exists=True), required=True, help="Holds them."
)
@click.option(
    "--model",
    "models",
    multiple=True,
    default=["clipita-mini"],
    help="May be repeated: each is compared with the first.",
)
@click.option("--only", type=click.File(encoding="utf-8"), help="A list of images, one a line: only those.")
@click.option("--locale", default="it", show_default=True, help="Which of XM3600's captions.")
@click.option("--notebook", is_flag=True, help="Rank as the notebook of CLIP-Italian did.")
@click.option("--cache", type=Folder, help="Keep embeddings here, so that a second table takes seconds.")
@click.option("--out", type=Out, help="Also write OUT.md and OUT.json.")
def retrieval_command(
    captions: tuple[Path, str | None],
    images: Path,
    models: Sequence[str],
    only: TextIO | None,
    locale: str,
    notebook: bool,
    cache: Path | None,
    out: Path | None,
) -> None:
    """Text to image and image to text retrieval: MRR and Recall at 1, 5 and 10, with intervals."""
    path, format = captions
    try:
        wanted = None if only is None else [line.strip() for line in only if line.strip()]
        captioned = read_captions(path, format, locale=locale, only=wanted)
        with nullcontext(cache) if cache is not None else tempfile.TemporaryDirectory() as kept:
            result = comparison.compare(
                (clipita.load(name) for name in models),
                captioned,
                images,
                Path(kept),
                captions_file=path.name,
                notebook=notebook,
            )
    except (FileNotFoundError, ValueError, ClipitaError) as error:
        raise click.ClickException(str(error)) from None
    _write(comparison.markdown(result), result.to_json(), out)


def _write(table: str, facts: dict[str, Any], out: Path | None) -> None:
    click.echo(table)
    if out is not None:
        out.with_suffix(".md").write_text(table, encoding="utf-8")
        out.with_suffix(".json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
