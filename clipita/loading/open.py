"""Open the bundle of a model by its name: fetch it, convert it from another layout, or quantize it, if need be."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipita.bundles.bundle import EMBEDDED, MANIFEST, WEIGHTS, Bundle, read_bundle
from clipita.loading.hub import embedded_models, resolve
from clipita.loading.known import known_model, restriction
from clipita.locale.language import phrase
from clipita.system.progress import timing
from clipita.towers.opened import OpenedModel

if TYPE_CHECKING:
    from clipita.convert.folder.origin import Origin

_log = logging.getLogger("clipita")
_logged: set[str] = set()
_LOW = 0.98  # a mean cosine below which a model's answers change

# The version of the conversion, a part of the path of every bundle made here: raise it when the same checkpoint becomes
# another bundle.
CONVERTER = 2


def open_model(
    name_or_path: str | os.PathLike[str],
    *,
    precision: str | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> OpenedModel:
    """Find a model by its name, convert it if it is no bundle, and read what its bundle says.

    See `load` for the arguments and errors.
    """
    options: dict[str, Any] = {"cache_dir": cache_dir, "local_files_only": local_files_only}
    folder = resolve(name_or_path, precision=precision, revision=revision, **options)
    if (folder / MANIFEST).exists():
        bundle = read_bundle(folder)
    else:
        name = os.fspath(name_or_path)
        known = known_model(name) if is_snapshot(folder) else None
        images = resolve(known.images, **options) if known and known.images else None
        bundle = _converted(folder, name, known.license if known else None, images, precision, cache_dir)
    opened = OpenedModel.of(bundle)
    _check_towers(opened)
    say_restriction(bundle)
    if precision == "int8" and "int8" not in bundle.config.precisions and "fp32" in bundle.config.precisions:
        return OpenedModel.of(int8_of(opened, cache_dir))
    return opened


def lasting_name(name_or_path: str | os.PathLike[str]) -> str:
    """Return a name or path that loads the same model from any working directory: a folder becomes an absolute path."""
    name = os.fspath(name_or_path)
    is_name = isinstance(name_or_path, str) and name in embedded_models()
    folder = Path(name).expanduser()
    return os.path.abspath(folder) if not is_name and folder.is_dir() else name


def _check_towers(opened: OpenedModel) -> None:
    """Refuse towers that are of known kinds and cannot be built, before an engine is.

    ONNX Runtime does not need their sizes, and of towers of other kinds nothing can be said.
    """
    if opened.bundle.folder.parent != EMBEDDED:  # that one is tested; the import takes longer than all of `open_model`
        from clipita.towers.config import are_known

        if are_known(opened.bundle.config):
            _ = opened.towers


def say_restriction(bundle: Bundle) -> None:
    """Log, once for each model, a license that may surprise: GPL, or not for commercial use."""
    name, license = bundle.config.name, bundle.config.license
    asks = restriction(license)
    if asks is not None and f"{name} {license}" not in _logged:
        _logged.add(f"{name} {license}")
        _log.warning("The weights of %r are under %s: %s.", name, license, asks)


def origin_of(folder: Path, name: str, license: str | None = None, images: Path | None = None) -> "Origin":
    """Return the origin of a folder in another layout, which `resolve` returned for `name`."""
    from clipita.convert.folder.origin import Origin

    if is_snapshot(folder):
        return Origin(name, "Hugging Face hub", folder.name, license, images)
    return Origin(folder.resolve().name, "a folder", "", license, images)


def is_snapshot(folder: Path) -> bool:
    """Tell whether a folder is a commit in the hub's cache."""
    return folder.parent.name == "snapshots"


def _converted(
    folder: Path,
    name: str,
    license: str | None,
    images: Path | None,
    precision: str | None,
    cache_dir: str | os.PathLike[str] | None,
) -> Bundle:
    from clipita.convert.cache import cache_folder, cached_bundle
    from clipita.convert.folder.origin import has_layout, identity

    if not has_layout(folder):  # checked before the folder is searched: it may be a whole disk
        from clipita.convert.layouts.checkpoint import unknown_layout

        raise unknown_layout(folder)
    origin = origin_of(folder, name, license, images)
    key, needed_bytes = identity(folder, origin, precision)
    place = cache_folder(cache_dir) / _file_name(origin.name) / f"{key}-v{CONVERTER}"

    def make(part: Path) -> None:
        from clipita.convert.foreign import convert

        with timing(phrase("Converting {name}", name=origin.name)) as bar:
            convert(folder, part, origin, precision=precision, on_step=bar.set_postfix_str)

    return cached_bundle(place, make, called=repr(name), needed_bytes=needed_bytes)


def int8_of(opened: OpenedModel, cache_dir: str | os.PathLike[str] | None) -> Bundle:
    """Return the int8 form of a float32 bundle, with its measured fidelity. It is made once and kept."""
    from clipita.convert.cache import cache_folder, cached_bundle

    bundle, name = opened.bundle, opened.bundle.config.name
    place = cache_folder(cache_dir) / _file_name(name) / f"{bundle.fingerprint('fp32')}-int8-v{CONVERTER}"
    made = cached_bundle(
        place,
        lambda part: rewritten(opened, part, precision="int8"),
        called=f"int8 of {name!r}",
        needed_bytes=bundle.path(WEIGHTS).stat().st_size // 4,
    )
    low = {key: cosine for key, cosine in made.config.fidelity.items() if cosine < _LOW and not key.endswith("_min")}
    if low and made.fingerprint("int8") not in _logged:
        _logged.add(made.fingerprint("int8"))
        _log.warning("int8 costs %r more than usual (%s to float32); its fp32 is the better choice.", name, low)
    return made


def rewritten(opened: OpenedModel, folder: Path, *, precision: str, portable: bool = False) -> Bundle:
    """Write a float32 bundle in another form, and add the measured fidelity to an int8 one."""
    from clipita.backends.calibration import largest_inputs
    from clipita.backends.onnx import OnnxBackend
    from clipita.convert.fidelity import fidelity
    from clipita.convert.rewrite import rewrite, with_fidelity

    bundle = opened.bundle
    with timing(phrase("Writing {name} as {precision}", name=bundle.config.name, precision=precision)) as bar:
        largest = largest_inputs(opened) if precision == "int8" else {}
        made = rewrite(opened, folder, precision=precision, portable=portable, largest=largest)
        if precision == "fp32":
            return made
        bar.set_postfix_str(phrase("comparing"))
        both = OnnxBackend(bundle, precision="fp32"), OnnxBackend(made, precision=precision)
        return with_fidelity(made, fidelity(opened, *both))


def _file_name(name: str) -> str:
    return name.replace("/", "--")
