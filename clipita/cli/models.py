"""Define the commands about models: `models` lists them, `info` describes one, `convert` changes its form."""

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

import click

from clipita import __version__
from clipita.bundles.bundle import MANIFEST, WEIGHTS, Bundle
from clipita.cli.compare import Pictures, compare, loss, read_pictures
from clipita.cli.options import (
    Unusable,
    common_options,
    echo,
    json_option,
    number_between,
    print_facts,
    print_json,
)
from clipita.loading.hub import embedded_models, resolve
from clipita.loading.known import KNOWN
from clipita.loading.load import load
from clipita.loading.open import int8_of, open_model, rewritten
from clipita.locale.language import phrase
from clipita.system.cpus import usable_cpus


@click.command(short_help="List models that are known to load, with their licenses.")
@json_option
def models(as_json: bool) -> None:
    """List models that are known to read Italian or to load here, with the license of their weights.

    \b
        clipita models

    Any other model in one of their layouts loads as well.
    """  # noqa: D301 (click reads the character \b)
    listed = [{"name": name, "license": "Apache-2.0", "about": "inside the package"} for name in embedded_models()]
    listed += [{"name": known.name, "license": known.license, "about": known.about} for known in KNOWN]
    if as_json:
        print_json(models=listed)
        return
    width = max(len(model["name"]) for model in listed) + 2
    for model in listed:
        echo(f"{model['name']:{width}}{model['license']:14}{phrase(model['about'])}")


@click.command(short_help="Describe a model and the engine that runs it.")
@click.argument("name", required=False, metavar="[NAME]")
@common_options
def info(name: str | None, model: str, as_json: bool) -> None:
    """Describe a model and the engine that runs it. NAME is the same as --model NAME.

    \b
        clipita info
        clipita info clip-italian/clip-italian
    """  # noqa: D301 (click reads the character \b)
    name = name or model
    folder = resolve(name)
    bundle = open_model(name).bundle
    loaded = load(bundle.folder)
    tokenizer: dict[str, Any] = bundle.config.text["tokenizer"]
    facts: dict[str, Any] = {
        "model": loaded.name,
        "layout": _layout(folder),
        "license": loaded.license,
        "source": bundle.config.source,
        "revision": bundle.config.revision,
        "folder": str(folder),
        "bundle": str(bundle.folder),
        "bytes": sum(bundle.path(file).stat().st_size for file in bundle.files),
        "fingerprint": loaded.fingerprint,
        "image_tower": _tower(bundle, "image"),
        "text_tower": _tower(bundle, "text"),
        "embed_dim": loaded.embed_dim,
        "image_size": loaded.image_size,
        "max_tokens": loaded.max_tokens,
        "tokenizer": ", ".join(f"{key} {value!r}" for key, value in tokenizer.items() if value not in (False, "")),
        "logit_scale": loaded.logit_scale,
        "logit_bias": loaded.logit_bias,
        "templates": list(loaded.templates),
        "precision": loaded.precision,
        "precisions": list(bundle.config.precisions),
        "providers": list(loaded.providers),
        "threads": usable_cpus(),
        "versions": {
            "clipita": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("numpy", "onnxruntime", "pillow", "tokenizers")},
        },
    }
    if as_json:
        print_json(**facts)
        return
    facts["bytes"] = f"{facts['bytes']:,}"
    facts["versions"] = [f"{name} {version}" for name, version in facts["versions"].items()]
    print_facts({key: value for key, value in facts.items() if value not in (None, "")})


@click.command(short_help="Turn a checkpoint into a bundle, in float32 or int8.")
@click.argument("name", metavar="NAME")
@click.option("--output", "-o", type=click.Path(file_okay=False, path_type=Path), help="A new folder for the bundle.")
@click.option("--precision", type=click.Choice(["fp32", "int8"]), default="fp32", show_default=True)
@click.option("--portable", is_flag=True, help="Standard ONNX operators only, for other runtimes. Needs --output.")
@click.option(
    "--check",
    "checks",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of pictures to judge int8 on: with a folder for each label, or a captions.jsonl. May be repeated.",
)
@click.option(
    "--max-loss",
    default=0.02,
    show_default=True,
    callback=number_between(0, 2, "a loss of a cosine or a score"),
    help="The most that int8 may lose of a cosine or a score.",
)
@click.option("--accept-loss", is_flag=True, help="Keep the int8 form however much it loses.")
@click.option("--revision", help="Branch, tag or commit on the hub.")
@json_option
def convert(
    name: str,
    output: Path | None,
    precision: str,
    portable: bool,
    checks: tuple[Path, ...],
    max_loss: float,
    accept_loss: bool,
    revision: str | None,
    as_json: bool,
) -> None:
    """Turn the checkpoint NAME into a bundle, and print how much int8 loses.

    \b
        clipita convert owner/name --precision int8 --check foto

    NAME is a folder or a name on the hub. Without --output the bundle is kept where `load` finds it.
    """  # noqa: D301 (click reads the character \b)
    if portable and output is None:
        message = phrase("needs --output: `load` has no use for such graphs.")
        raise click.BadParameter(message, param_hint="'--portable'")
    if checks and precision != "int8":
        message = phrase("is for --precision int8: float32 loses nothing.")
        raise click.BadParameter(message, param_hint="'--check'")
    if output is not None and output.exists() and any(output.iterdir()):
        raise Unusable(phrase("{folder!r} is not empty. Name a new folder.", folder=str(output)))
    opened = open_model(name, precision="fp32", revision=revision)
    reference = opened.bundle
    if "fp32" not in reference.config.precisions:
        message = (
            "{name!r} is a bundle already, and has no float32 weights to begin with, only {precisions}. Convert the "
            "checkpoint that it was made from."
        )
        raise Unusable(phrase(message, name=name, precisions=", ".join(reference.config.precisions)))
    sets = [read_pictures(folder) for folder in checks]
    report: dict[str, Any] = {"model": reference.config.name, "license": reference.config.license}
    if output is None:
        bundle = int8_of(opened, None) if precision == "int8" else reference
        _judge(reference, bundle, sets, None if accept_loss else max_loss, report, is_cached=True)
    else:
        # The bundle is made beside its place, which stays empty if it is refused or the command is stopped.
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
            bundle = rewritten(opened, Path(scratch) / "bundle", precision=precision, portable=portable)
            _judge(reference, bundle, sets, None if accept_loss else max_loss, report, is_cached=False)
            if output.exists():
                output.rmdir()
            os.replace(bundle.folder, output)
        bundle = dataclasses.replace(bundle, folder=output)
    report |= {
        "bundle": str(bundle.folder),
        "precision": precision,
        "fingerprint": bundle.fingerprint(precision),
        "bytes": sum(bundle.path(file).stat().st_size for file in bundle.files),
    }
    if as_json:
        print_json(**report)
    else:
        report["bytes"] = f"{report['bytes']:,}"
        measured: dict[str, dict[str, float]] = {key: value for key, value in report.items() if isinstance(value, dict)}
        for key, found in measured.items():
            report[key] = [f"{what} {value:.6g}" for what, value in found.items()]
        print_facts(report)
    for pictures in sets:
        if pictures.left_aside:
            echo(f"{pictures.folder}: {pictures.left_aside}", err=True)


def _judge(
    reference: Bundle,
    bundle: Bundle,
    sets: list[Pictures],
    max_loss: float | None,
    report: dict[str, Any],
    *,
    is_cached: bool,
) -> None:
    """Add the losses of an int8 bundle to the report, and refuse the bundle if one is too large."""
    if bundle is reference or not bundle.config.fidelity:
        return
    report["samples"] = dict(bundle.config.fidelity)
    if sets:
        models = load(reference.folder, precision="fp32"), load(bundle.folder, precision="int8")
        report |= {str(pictures.folder): compare(*models, pictures) for pictures in sets}
    measured: dict[str, dict[str, float]] = {key: value for key, value in report.items() if isinstance(value, dict)}
    for where, found in measured.items():
        what, lost = loss(found)
        if max_loss is not None and lost > max_loss:
            if is_cached:  # `load` would find it there
                shutil.rmtree(bundle.folder)
            message = (
                "int8 loses {lost:.4f} of {what} on {where}, more than --max-loss {max_loss}. Nothing was kept; use "
                "fp32, or give --accept-loss."
            )
            raise Unusable(phrase(message, lost=lost, what=what, where=where, max_loss=max_loss))


def _layout(folder: Path) -> str:
    if (folder / MANIFEST).exists():
        return "clipita bundle"
    from clipita.convert.foreign import layout_of

    return layout_of(folder) or "unknown"


def _tower(bundle: Bundle, tower: str) -> str:
    """Describe one tower by its kind, its number of parameters and its sizes."""
    from clipita.convert.weights.safetensors_file import parameter_counts

    fields = {
        key: value
        for key, value in getattr(bundle.config, tower).items()
        if key not in ("kind", "preprocessing", "tokenizer") and value is not None
    }
    kind = getattr(bundle.config, tower).get("kind")
    count = parameter_counts(bundle.path(WEIGHTS))[tower]
    return ", ".join([f"{kind}, {count:,} parameters", *(f"{key} {value}" for key, value in fields.items())])
