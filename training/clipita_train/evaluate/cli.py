"""The commands `clipita-train evaluate`: zero-shot classification, retrieval, and development sets of a recipe."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

import clipita
from clipita.cli.options import echo
from clipita.errors import ClipitaError
from clipita_train.data.captions.files import FORMATS, read_captions
from clipita_train.data.concepts import load_ontology
from clipita_train.data.photographs.manifest import read_manifest
from clipita_train.evaluate import calibration, comparison, development, presence, templates, zero_shot
from clipita_train.evaluate.embedding_cache import cache_folder
from clipita_train.evaluate.everyday import scores as everyday
from clipita_train.evaluate.everyday.sets import SETS
from clipita_train.evaluate.image_folders import find_labeled_images
from clipita_train.evaluate.label_sets import IMAGENET_IT, read_label_set
from clipita_train.evaluate.tasks import embed_sources
from clipita_train.evaluate.zero_shot_table import markdown

Folder = click.Path(path_type=Path, file_okay=False)
Out = click.Path(path_type=Path)

_images = click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="The folder of the photographs.",
)
_models = click.option(
    "--model",
    "models",
    multiple=True,
    default=["clipita-mini"],
    help="A model; may be repeated, and each is then compared with the first.",
)
_cache = click.option(
    "--cache", type=Folder, help="A folder to keep embeddings in, so that another table takes seconds."
)
_out = click.option("--out", type=Out, help="Also write OUT.md and OUT.json.")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _on_development_sets(command: _Command) -> _Command:
    """Add the options of a command that measures a model on the development photographs of a recipe."""
    model = click.option("--model", default="clipita-mini", help="An embedded model, a folder, or a name on the hub.")
    root = click.option("--root", type=Folder, required=True, help="Holds the clones, as OWNER/NAME.")
    work = click.option("--work", type=Folder, required=True, help="The folder of manifest.jsonl.")
    return model(root(work(_cache(_out(command)))))


@click.group()
def evaluate() -> None:
    """Measure a model as its users load it."""


@evaluate.command("development")
@_on_development_sets
def development_command(model: str, root: Path, work: Path, cache: Path | None, out: Path | None) -> None:
    """Measure zero-shot accuracy and calibration on every development set of a recipe's manifest."""
    try:
        loaded = clipita.load(model)
        examples = read_manifest(work / "manifest.jsonl")
        scores = development.evaluate(loaded, examples, root, load_ontology(), cache)
    except (FileNotFoundError, ValueError, ClipitaError) as error:
        raise click.ClickException(str(error)) from None
    facts = {"model": loaded.name, "fingerprint": loaded.fingerprint, "templates": loaded.templates}
    facts |= {"logit_scale": loaded.logit_scale, "logit_bias": loaded.logit_bias}
    _write(development.markdown(scores), {**facts, "scores": [score.to_json() for score in scores]}, out)


@evaluate.command("presence")
@click.option("--model", default="clipita-mini", help="An embedded model, a folder, or a name on the hub.")
@click.option(
    "--embeddings",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    required=True,
    help="What `clipita embed` wrote of the collections that presence_queries.tsv names.",
)
@click.option(
    "--write", type=Out, help="Write the numbers to this file, as clipita/search/background/clipita-mini.npz has them."
)
@_out
def presence_command(model: str, embeddings: Path, write: Path | None, out: Path | None) -> None:
    """Find the numbers by which a search says that it found nothing, and how often that errs."""
    try:
        loaded = clipita.load(model)
        fingerprints = (loaded.fingerprint, clipita.load(model, exact=True).fingerprint)
        found, errors = presence.calibrate(loaded, fingerprints, embeddings)
    except (ValueError, ClipitaError) as error:
        raise click.ClickException(str(error)) from None
    if write is not None:
        write.write_bytes(found.to_bytes())
    facts = {"model": loaded.name, "fingerprint": loaded.fingerprint, "threshold": found.threshold}
    listed = {name: {group: asdict(each) for group, each in groups.items()} for name, groups in errors.items()}
    _write(presence.markdown(errors), {**facts, "weights": found.weights.tolist(), "errors": listed}, out)


@evaluate.command("certainty")
@_on_development_sets
def certainty_command(model: str, root: Path, work: Path, cache: Path | None, out: Path | None) -> None:
    """Find the best calibrated logit scale for ten labels, and the cosine below which none of them fits."""
    try:
        loaded = clipita.load(model)
        if loaded.logit_bias is not None:
            raise ValueError(
                f"{loaded.name} was trained with sigmoids: its scores are near 0 where no label "
                "fits, and need no threshold"
            )
        examples = [e for e in read_manifest(work / "manifest.jsonl") if e.source not in calibration.SMALL]
        ontology = load_ontology()
        with cache_folder(cache) as kept:
            asked = calibration.ask(loaded, embed_sources(loaded, examples, root, ontology, kept), ontology)
        report = calibration.judge(asked, loaded.logit_scale)
    except (FileNotFoundError, ValueError, ClipitaError) as error:
        raise click.ClickException(str(error)) from None
    facts = {"model": loaded.name, "fingerprint": loaded.fingerprint}
    _write(calibration.markdown(report), facts | report.to_json(), out)


@evaluate.command("templates")
@_on_development_sets
def templates_command(model: str, root: Path, work: Path, cache: Path | None, out: Path | None) -> None:
    """Choose the templates to average on one half of two development sets, and judge them on the other half."""
    try:
        loaded = clipita.load(model)
        with cache_folder(cache) as kept:
            sets = templates.tasks(loaded, read_manifest(work / "manifest.jsonl"), root, load_ontology(), kept)
    except (FileNotFoundError, ValueError, ClipitaError) as error:
        raise click.ClickException(str(error)) from None
    steps = templates.choose(sets, loaded.logit_scale)
    places = {name: i for i, name in enumerate(templates.CANDIDATES)}
    others = [[places["{}"]], [places[name] for name in loaded.templates if name in places], [*places.values()]]
    compared = [templates.measure(sets, loaded.logit_scale, some) for some in others if some]
    facts = {"model": loaded.name, "fingerprint": loaded.fingerprint, "chosen": steps[-1].templates}
    tables = {"steps": [step.to_json() for step in steps], "others": [step.to_json() for step in compared]}
    _write(templates.markdown(steps, compared), facts | tables, out)


@evaluate.command("zeroshot")
@_images
@click.option(
    "--labels",
    "label_sets",
    multiple=True,
    default=[IMAGENET_IT],
    metavar="NAME|FILE",
    help=f"{IMAGENET_IT}, or a file with the columns id and label; may be repeated.",
)
@click.option(
    "--templates",
    "phrasings",
    multiple=True,
    default=["model"],
    metavar="NAME|FILE",
    help=f"{', '.join(zero_shot.PHRASINGS)}, or a file with one a line; may be repeated.",
)
@click.option(
    "--truth",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A list of what each file shows, if folders and file names do not say so.",
)
@_models
@_cache
@_out
def zeroshot_command(
    images: Path,
    label_sets: Sequence[str],
    phrasings: Sequence[str],
    truth: Path | None,
    models: Sequence[str],
    cache: Path | None,
    out: Path | None,
) -> None:
    """Classify photographs by Italian labels: Acc@1, 5, 10 and 100, and the classes that are confused."""
    try:
        sets = [read_label_set(name) for name in label_sets]
        phrased = [zero_shot.read_phrasing(name) for name in phrasings]
        photographs = find_labeled_images(images, sets[0], truth)
        with cache_folder(cache) as kept:
            report = zero_shot.classify((clipita.load(name) for name in models), photographs, sets, phrased, kept)
    except (FileNotFoundError, ValueError, ClipitaError) as error:
        raise click.ClickException(str(error)) from None
    name = images.resolve().name  # resolved, since "." has no name
    _write(markdown(report, name), {"images": name, **report.to_json()}, out)
    if photographs.left_aside:
        echo(photographs.left_aside, err=True)


@evaluate.command("everyday")
@click.option("--root", type=Folder, required=True, help="Holds the clones, as OWNER/NAME.")
@_models
@click.option("--only", multiple=True, type=click.Choice(SETS), default=SETS, help="A set to ask; may be repeated.")
@click.option("--without", multiple=True, metavar="OWNER/NAME", help="Leave a repository out; may be repeated.")
@_cache
@_out
def everyday_command(
    root: Path, models: Sequence[str], only: Sequence[str], without: Sequence[str], cache: Path | None, out: Path | None
) -> None:
    """Measure labels, search and sentences on photographs as people take them."""
    try:
        with cache_folder(cache) as kept:
            found = everyday.measure((clipita.load(name) for name in models), root, kept, only=only, without=without)
    except (FileNotFoundError, ValueError, ClipitaError) as error:
        raise click.ClickException(str(error)) from None
    _write(everyday.markdown(found), found.to_json(), out)


def _captions(_: click.Context, __: click.Parameter, text: str) -> tuple[Path, str | None]:
    """Parse FILE[:FORMAT]; a colon may also be part of a file name."""
    name, colon, format = text.rpartition(":")
    path, chosen = (Path(name), format) if colon and format in FORMATS else (Path(text), None)
    if not path.is_file():
        raise click.BadParameter(f"no file at {path}; expected FILE or FILE:FORMAT, with one of {', '.join(FORMATS)}")
    return path, chosen


@evaluate.command("retrieval")
@click.option(
    "--captions", metavar="FILE[:FORMAT]", callback=_captions, required=True, help="The file of captions, as published."
)
@_images
@_models
@click.option("--only", type=click.File(encoding="utf-8"), help="A list of images, one a line, to use only those.")
@click.option("--locale", default="it", show_default=True, help="The language of XM3600's captions.")
@click.option("--notebook", is_flag=True, help="Rank as the notebook of CLIP-Italian did.")
@_cache
@_out
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
    """Measure text to image and image to text retrieval: MRR and Recall at 1, 5 and 10, with intervals."""
    path, format = captions
    try:
        wanted = None if only is None else [line.strip() for line in only if line.strip()]
        captioned = read_captions(path, format, locale=locale, only=wanted)
        with cache_folder(cache) as kept:
            result = comparison.compare(
                (clipita.load(name) for name in models),
                captioned,
                images,
                kept,
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
