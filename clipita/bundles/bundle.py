"""Read, verify and write bundles, the folders that models are kept in.

clipita.json         the description of the model, and the sha256 of every other file; written last
image.onnx           the towers; their large weights are external data that points into weights.safetensors,
text.onnx              so that ONNX Runtime and Flax share one copy of each weight
tokenizer.json       the text tower's tokenizer, in the format of the tokenizers library
weights.safetensors  the weights of both towers
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from clipita.bundles.limits import check_limits
from clipita.bundles.strict import did_you_mean, from_mapping
from clipita.errors import CheckpointError
from clipita.system.files import replacing

FORMAT_VERSION = 1
MANIFEST = "clipita.json"
TOKENIZER = "tokenizer.json"
WEIGHTS = "weights.safetensors"

EMBEDDED = Path(__file__).parent.parent / "models"  # the models inside the package, each a folder

# The version of `clipita.images`, a part of every fingerprint: raise it when the same file becomes other pixels. From 2
# on, colors are converted to sRGB where an ICC profile says that they are in another space.
PIXELS = 2

# clipita-mini's clipita.json has 2 kB, and a list of a thousand templates would add 100 kB.
MAX_MANIFEST_BYTES = 1 << 20
# Graphs keep their weights in another file: those of the largest towers in use have 2 MB. Exports may hold more.
MAX_GRAPH_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Graphs:
    """The file names of the two graphs of one precision."""

    image: str
    text: str


@dataclasses.dataclass(frozen=True)
class BundleConfig:
    """The contents of `clipita.json`, without the format version and the hashes.

    Attributes:
        source: Where the weights come from.
        revision: Which version of the source, e.g. a commit.
        embed_dim: Width E of the embeddings.
        logit_scale: Multiplier of the cosine, 1/temperature; never its logarithm.
        logit_bias: Added to the logits by models with a sigmoid loss, else None.
        templates: Sentences that labels are put into, each with one "{}" for the label.
        image: The image tower's fields and its "preprocessing", which `clipita.towers` and `clipita.images` read.
        text: The text tower's fields and its "tokenizer", which `clipita.towers` and `clipita.text` read.
        fidelity: For weights in few bits, the cosines to the embeddings of float32, measured when they were made.
    """

    name: str
    license: str
    source: str
    revision: str
    embed_dim: int
    logit_scale: float
    logit_bias: float | None
    templates: tuple[str, ...]
    image: Mapping[str, Any]
    text: Mapping[str, Any]
    image_projection: Mapping[str, Any]
    text_projection: Mapping[str, Any]
    precisions: Mapping[str, Graphs]
    recommended_precision: str
    fidelity: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float], kw_only=True)


@dataclasses.dataclass(frozen=True)
class _Manifest(BundleConfig):
    files: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A verified bundle: its folder, its description, and the sha256 of its files."""

    folder: Path
    config: BundleConfig
    files: Mapping[str, str]

    def path(self, name: str) -> Path:
        """Return the path of the file `name` of this bundle."""
        return self.folder / name

    def fingerprint(self, precision: str, *, exact: bool = False) -> str:
        """Return 16 hex digits that are equal for two models exactly when their embeddings may be compared.

        They cover the weights, the preparation of inputs before the towers, and the precision. They do not cover the
        graph files: a better graph over the same weights gives the same embeddings.

        Args:
            precision: One of the bundle's.
            exact: Whether pixels are prepared as `load(exact=True)` has them.
        """
        parts = {
            "weights": self.files[WEIGHTS],
            "vocabulary": self.files[TOKENIZER],
            "preprocessing": self.config.image["preprocessing"],
            "tokenizer": self.config.text["tokenizer"],
            "precision": precision,
            "pixels": "exact" if exact else PIXELS,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def read_bundle(folder: str | os.PathLike[str], *, verify: bool = True) -> Bundle:
    """Read a bundle, and verify its description and the contents of its files.

    Args:
        folder: The bundle.
        verify: Whether to compare the hashes; False is for a caller that knows that the files are those it wrote.

    Raises:
        CheckpointError: A file is missing, damaged, or outside the folder; `clipita.json` is of a newer format, has
            unknown keys, or has values that are of a wrong type or far too large. The message says which, and what to
            do.
    """
    folder = Path(folder)
    manifest = read_manifest(folder / MANIFEST)
    graphs = {name for both in manifest.precisions.values() for name in (both.image, both.text)}
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{str(folder)!r} lacks the file {name!r}. Copy or download the whole folder again.")
        check_inside(path, folder)
        try:
            if name in graphs and (size := path.stat().st_size) > MAX_GRAPH_BYTES:
                raise CheckpointError(
                    f"{str(path)!r} has {size:,} bytes, and a graph beside its weights has at most "
                    f"{MAX_GRAPH_BYTES:,}. Nothing of it was read; check where it comes from."
                )
            if not verify:
                continue
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(
                f"{str(path)!r} cannot be read: {error.strerror or error}. Copy or download it again."
            ) from error
        if found != expected:
            raise CheckpointError(
                f"{str(path)!r} is damaged or was changed: its sha256 is {found[:12]}…, but {MANIFEST} says "
                f"{expected[:12]}…. Copy or download it again."
            )
    fields = {field.name: getattr(manifest, field.name) for field in dataclasses.fields(BundleConfig)}
    return Bundle(folder, BundleConfig(**fields), manifest.files)


def read_manifest(path: Path) -> _Manifest:
    """Read `clipita.json` and check that it agrees with itself, without opening the files that it names.

    Raises:
        CheckpointError: As `read_bundle`, but for the other files.
    """
    where = repr(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
        if len(content) > MAX_MANIFEST_BYTES:
            raise CheckpointError(
                f"{where} has more than {MAX_MANIFEST_BYTES:,} bytes, which no description of a model needs. Nothing "
                "of it was read; check where it comes from."
            )
        data: object = json.loads(content)
    except FileNotFoundError:
        raise CheckpointError(
            f"{str(path.parent)!r} is not a clipita bundle: it has no {MANIFEST}. Other layouts are not read."
        ) from None
    except OSError as error:
        raise CheckpointError(f"{where} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is not valid JSON: {error}. Copy or download it again.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{where} must hold a JSON object, but it holds a {type(data).__name__}.")
    values = cast("dict[str, Any]", data)

    # The version comes first: about a newer format any other complaint could be wrong.
    version = values.pop("format_version", None)
    if type(version) is int and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{where} has format_version {version}, and this clipita reads up to {FORMAT_VERSION}. "
            "Upgrade it: pip install -U clipita."
        )
    if type(version) is not int or version < 1:
        raise CheckpointError(f"{where}: 'format_version' must be an int from 1 on, but it is {version!r}.")
    manifest = from_mapping(_Manifest, values, where)
    _check_manifest(manifest, where)
    return manifest


def write_bundle(
    folder: str | os.PathLike[str],
    *,
    config: BundleConfig,
    files: Mapping[str, Path | bytes],
    moved: Collection[str] = (),
) -> Bundle:
    """Write a bundle, and return it as `read_bundle` reads it.

    At every moment `folder` is either no bundle or a whole one: an old `clipita.json` is deleted first, and the new one
    is written last.

    Args:
        folder: Made if it does not exist. A bundle in it is replaced; files of other names stay.
        config: The contents of `clipita.json`.
        files: Every file that `config` names, "tokenizer.json" and "weights.safetensors": its contents, or the path to
            copy it from.
        moved: The names of files to move instead of copying them; they must be on the same disk.

    Raises:
        CheckpointError: `config` and `files` do not make a bundle.
    """
    folder = Path(folder)
    where = f"the bundle for {str(folder)!r}"
    hashes: dict[str, str] = {}
    for name, source in files.items():
        _check_name(name, where)
        if isinstance(source, bytes):
            hashes[name] = hashlib.sha256(source).hexdigest()
        else:
            with source.open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    values = {**dataclasses.asdict(config), "files": hashes}
    text = json.dumps({"format_version": FORMAT_VERSION, **values}, indent=2, ensure_ascii=False) + "\n"
    _check_manifest(from_mapping(_Manifest, json.loads(json.dumps(values)), where), where)

    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for name, source in files.items():
        _replace(folder / name, source, move=name in moved)
    _replace(folder / MANIFEST, text.encode())
    return read_bundle(folder)


def _check_manifest(manifest: _Manifest, where: str) -> None:
    if manifest.embed_dim < 1 or manifest.logit_scale <= 0:
        raise CheckpointError(
            f"{where}: embed_dim and logit_scale must be positive, but they are {manifest.embed_dim} and "
            f"{manifest.logit_scale}."
        )
    check_limits(vars(manifest) | {"precisions": list(manifest.precisions)}, where)
    if not manifest.templates or any(template.count("{}") != 1 for template in manifest.templates):
        shown = str(list(manifest.templates))[:200]
        raise CheckpointError(f"{where}: 'templates' must be sentences with one {{}} each, but it is {shown}.")
    for tower, part in (("image", "preprocessing"), ("text", "tokenizer")):
        if not isinstance(getattr(manifest, tower).get(part), dict):
            raise CheckpointError(f"{where}: {tower!r} must hold an object {part!r}.")
        if not isinstance(getattr(manifest, tower).get("kind", ""), str):
            raise CheckpointError(f"{where}: {tower!r}['kind'] must be a str. Export the bundle again.")
    if manifest.recommended_precision not in manifest.precisions:
        raise CheckpointError(
            f"{where}: 'recommended_precision' is {manifest.recommended_precision!r}, but 'precisions' has "
            f"{sorted(manifest.precisions)}.{did_you_mean(manifest.recommended_precision, manifest.precisions)}"
        )
    needed = {TOKENIZER, WEIGHTS}
    for graphs in manifest.precisions.values():
        needed |= {graphs.image, graphs.text}
        for name in (graphs.image, graphs.text):
            if not name.endswith(".onnx"):  # ONNX Runtime tells the format by the name, and others are not checked
                raise CheckpointError(f"{where}: {name[:80]!r} must end with '.onnx', as a graph. Export it again.")
    if unlisted := sorted(needed - manifest.files.keys()):
        raise CheckpointError(f"{where}: 'files' lacks {', '.join(map(repr, unlisted))}. Export the bundle again.")
    for name in manifest.files:
        _check_name(name, where)


def _check_name(name: str, where: str) -> None:
    """Refuse a name with a path in it: a bundle is flat, so that the path could only lead out of it."""
    odd = name in ("", ".", "..", MANIFEST) or any(character in name for character in "/\\:\0")
    if odd or len(name.encode(errors="replace")) > 255:
        raise CheckpointError(
            f"{where}: {name[:80]!r} cannot be a file of a bundle: plain names in its own folder only."
        )


def check_inside(path: Path, folder: Path) -> None:
    """Refuse a link that leads out of its folder.

    The hub's cache is an exception: there snapshots/<commit>/<name> links to blobs/<hash> of the repository, and that
    may link on to the blobs that all repositories share.

    Args:
        path: The file.
        folder: The folder that it must stay in: a bundle, a checkpoint, or a folder inside a snapshot.

    Raises:
        CheckpointError: The link leads elsewhere, or nowhere.
    """
    try:
        home, target = folder.resolve(), path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError until Python 3.12
        raise CheckpointError(f"{str(path)!r} is a link that leads nowhere: {error}. Put the file there.") from error
    repository = next((part.parent for part in (home, *home.parents) if part.name == "snapshots"), None)
    is_blob = repository is not None and (
        target.parent == repository / "blobs" or target.is_relative_to(repository.parent / "blobs")
    )
    if not target.is_relative_to(home) and not is_blob:
        raise CheckpointError(
            f"{str(path)!r} is a link to {str(target)!r}, outside its folder. Put the file itself there."
        )


def _replace(path: Path, source: Path | bytes, *, move: bool = False) -> None:
    """Write a file so that no other process sees it half written. `source` may be `path` itself."""
    if source == path and not path.is_symlink():
        return
    if move and isinstance(source, Path):
        os.replace(source, path)
        return
    with replacing(path) as part:
        if isinstance(source, bytes):
            part.write_bytes(source)
        else:
            shutil.copyfile(source, part)
