"""Define the command `zero-shot`, which says which labels fit a photograph, or several."""

import os
import re
import sys
from collections.abc import Callable
from typing import Any

import click

from clipita.cli.options import Unusable, common_options, crop_option, echo, echo_error, number_between, print_json
from clipita.errors import ImageError
from clipita.images.photo_files import is_picture_name
from clipita.images.pixels import Crop
from clipita.loading.load import load
from clipita.locale.language import phrase
from clipita.locale.recognition import recognized
from clipita.model import Model
from clipita.zero_shot import LabelScore

_STANDARD_INPUT = "-"
_SEPARATE = "Labels are separated by spaces: clipita zero-shot foto.jpg gatto cane"


@click.command("zero-shot", short_help="Say which of your labels fit a photograph.")
@click.argument("words", nargs=-1, required=True, metavar="IMAGE LABELS...")
@click.option("--label", "-l", "labels", multiple=True, help="A label, for several images; may be repeated.")
@click.option("--template", "-t", "templates", multiple=True, help='Sentence with "{}" for the label; may be repeated.')
@click.option("--top-k", "-k", type=click.IntRange(min=1), help="Print only this many labels, the best.")
@click.option(
    "--min-cosine",
    type=float,
    callback=number_between(-1, 1, "a cosine"),
    help="Leave out labels whose cosine with the image is lower, even all of them.",
)
@crop_option
@common_options
def zero_shot(
    words: tuple[str, ...],
    labels: tuple[str, ...],
    templates: tuple[str, ...],
    top_k: int | None,
    min_cosine: float | None,
    crop: Crop,
    model: str,
    as_json: bool,
) -> None:
    """Say which LABELS fit IMAGE.

    \b
        clipita zero-shot foto.jpg cane gatto "un cane che corre"
        clipita zero-shot - cane gatto < foto.jpg

    "-" is the image from standard input. If the labels are given as options, all arguments are images:

    \b
        clipita zero-shot *.jpg -l cane -l gatto
    """  # noqa: D301 (click's mark is the character, not its escape)
    are_all_images = bool(labels)
    labels = labels or _labels(words)
    loaded = load(model)
    _warn_of_labels(loaded, labels, min_cosine)
    # The bank is made before an image is read, so that an unusable label is reported at once.
    bank = loaded.label_bank(labels, templates=templates or None)

    def scores_of(image: str) -> list[LabelScore]:
        read = _standard_input() if image == _STANDARD_INPUT else image
        return loaded.zero_shot(read, bank, top_k=top_k, min_cosine=min_cosine, crop=crop)

    if are_all_images:
        _several(loaded, words, scores_of, as_json)
        return
    scores = scores_of(words[0])
    if as_json:
        print_json(image=words[0], scores=_listed(scores), model=loaded.name, fingerprint=loaded.fingerprint)
    else:
        _print_scores(scores)


def _several(
    loaded: Model, images: tuple[str, ...], scores_of: Callable[[str], list[LabelScore]], as_json: bool
) -> None:
    """Print the scores of several images, and the error of each that cannot be read."""
    found: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for image in images:
        try:
            scores = scores_of(image)
        except ImageError as error:
            failed.append({"image": image, "error": str(error)})
            echo_error(recognized(str(error)))
            continue
        found.append({"image": image, "scores": _listed(scores)})
        if not as_json:
            echo(f"{image}:")
            _print_scores(scores)
    if as_json:
        print_json(images=found, failed=failed, model=loaded.name, fingerprint=loaded.fingerprint)
    if failed:
        raise click.exceptions.Exit(1 if found else 2)


def _labels(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words after the first as labels.

    Raises:
        UsageError: There are none.
        Unusable: One is named like an image, and was probably meant as one.
    """
    image, *labels = words
    if not labels:
        raise click.UsageError(phrase("Missing argument 'LABELS...'."))
    for label in labels:
        if is_picture_name(label) and (os.path.isfile(label) or not re.search(r"\s", label)):
            message = (
                "{label!r} is named like an image, but stands among the labels. For several images give the labels as "
                "options: clipita zero-shot {image!r} {label!r} -l gatto -l cane"
            )
            raise Unusable(phrase(message, label=label, image=image))
    return tuple(labels)


def _warn_of_labels(loaded: Model, labels: tuple[str, ...], min_cosine: float | None) -> None:
    """Warn of labels that are probably a mistake, but may be meant."""
    if any(re.search(r"\w,\w|,$", label.strip()) for label in labels) and not any(" " in label for label in labels):
        given = ", ".join(map(repr, labels))
        echo(
            f"{phrase('Warning: the labels have commas in them: {labels}.', labels=given)} {phrase(_SEPARATE)}",
            err=True,
        )
    elif len(labels) == 1 and loaded.logit_bias is None and min_cosine is None:
        alone = "Warning: one label alone always has 100 %, whatever the image shows. Give others too, or --min-cosine."
        echo(f"{phrase(alone)} {phrase(_SEPARATE)}", err=True)


def _standard_input() -> bytes:
    data = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()
    if not data:
        raise ImageError("'-' is the image from standard input, and nothing comes from there: add < foto.jpg")
    return data


def _listed(scores: list[LabelScore]) -> list[dict[str, Any]]:
    return [{"label": label, "score": score} for label, score in scores]


def _print_scores(scores: list[LabelScore]) -> None:
    for label, score in scores:
        echo(f"{score:6.1%}  {label}")
    if not scores:
        echo(phrase("None of the labels fits."), err=True)
