"""The name of a model to a bundle: fetched if need be, converted if it is in another layout, made int8 if asked for."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipita.bundle import MANIFEST, WEIGHTS, Bundle, read_bundle
from clipita.hub import resolve
from clipita.known import known_model, restriction

if TYPE_CHECKING:
    from tqdm import tqdm

_log = logging.getLogger("clipita")
_said: set[tuple[str, str]] = set()

# Part of the place of every bundle made here: a new one is made when conversion changes what comes out.
CONVERTER = 1


def open_bundle(
    name_or_path: str | os.PathLike[str],
    *,
    precision: str | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Bundle:
    """The bundle that a model is, or is turned into and kept as; see `load` for the arguments and errors."""
    options: dict[str, Any] = {"cache_dir": cache_dir, "local_files_only": local_files_only}
    folder = resolve(name_or_path, precision=precision, revision=revision, **options)
    if (folder / MANIFEST).exists():
        bundle = read_bundle(folder)
    else:
        known = known_model(os.fspath(name_or_path))
        images = resolve(known.images, **options) if known and known.images else None
        bundle = _converted(folder, os.fspath(name_or_path), precision, images, cache_dir)
    say_restriction(bundle)
    if precision == "int8" and "int8" not in bundle.config.precisions and "fp32" in bundle.config.precisions:
        return _int8(bundle, cache_dir)
    return bundle


def say_restriction(bundle: Bundle) -> None:
    """Log, once for each model, a licence that surprises: GPL, or not for commercial use."""
    name, license = bundle.config.name, bundle.config.license
    asks = restriction(license)
    if asks is not None and (name, license) not in _said:
        _said.add((name, license))
        _log.warning("The weights of %r are under %s: %s.", name, license, asks)


def _converted(
    folder: Path,
    name: str,
    precision: str | None,
    images: Path | None,
    cache_dir: str | os.PathLike[str] | None,
) -> Bundle:
    from clipita.convert.cache import cache_folder, cached_bundle
    from clipita.convert.foreign import Origin, convert, identity

    commit = folder.name if folder.parent.name == "snapshots" else None
    origin = Origin(name if commit else folder.resolve().name, name if commit else "a folder", commit or "", images)
    key, needed_bytes = identity(folder, origin, precision)
    place = cache_folder(cache_dir) / _file_name(origin.name) / f"{key}-v{CONVERTER}"

    def make(part: Path) -> None:
        with progress(f"Converting {origin.name}") as bar:
            convert(folder, part, origin, precision=precision, on_step=bar.set_postfix_str)

    return cached_bundle(place, make, called=repr(name), needed_bytes=needed_bytes)


def _int8(bundle: Bundle, cache_dir: str | os.PathLike[str] | None) -> Bundle:
    from clipita.backends.onnx import OnnxBackend
    from clipita.convert.cache import cache_folder, cached_bundle
    from clipita.convert.int8 import fidelity, with_fidelity, write_int8

    name = bundle.config.name
    key = f"{bundle.fingerprint('fp32')}-int8-v{CONVERTER}"

    def make(part: Path) -> None:
        with progress(f"Quantising {name}"):
            made = write_int8(bundle, part)
            measured = fidelity(bundle, OnnxBackend(bundle, precision="fp32"), OnnxBackend(made, precision="int8"))
            with_fidelity(made, measured)

    needed_bytes = bundle.path(WEIGHTS).stat().st_size // 2
    place = cache_folder(cache_dir) / _file_name(name) / key
    return cached_bundle(place, make, called=f"int8 of {name!r}", needed_bytes=needed_bytes)


def progress(what: str) -> "tqdm[Any]":
    """A line that says what is being done and for how long; on terminals only, and once it takes more than a second."""
    import sys

    from tqdm import tqdm

    return tqdm(desc=what, disable=None, file=sys.stderr, delay=1, bar_format="{desc}: {elapsed}{postfix}")


def _file_name(name: str) -> str:
    return name.replace("/", "--")
