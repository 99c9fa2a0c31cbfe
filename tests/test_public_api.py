"""What users may count on: the names, their signatures, what an import costs, and who imports whom."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import clipita

PACKAGE = Path(clipita.__file__).parent


def test_the_public_names_are_these() -> None:
    assert clipita.__all__ == [
        "BackendError",
        "CheckpointError",
        "ClipitaError",
        "Encoded",
        "ImageError",
        "ImageTooLargeError",
        "LabelBank",
        "LabelScore",
        "Model",
        "ModelNotFoundError",
        "TextError",
        "__version__",
        "encode_image",
        "encode_text",
        "load",
        "zero_shot",
    ]
    assert all(hasattr(clipita, name) for name in clipita.__all__)
    assert [name for name in vars(clipita.Model) if not name.startswith("_")] == [
        "name",
        "license",
        "embed_dim",
        "image_size",
        "max_tokens",
        "logit_scale",
        "logit_bias",
        "templates",
        "providers",
        "encode_text",
        "encode_image",
        "iter_encode_image",
        "label_bank",
        "zero_shot",
        "save_pretrained_hf",
    ]
    assert clipita.LabelScore._fields == ("label", "score")
    assert clipita.Encoded._fields == ("key", "embedding", "error")


def test_the_signatures_are_these() -> None:
    def parameters(function: object) -> str:
        signature = inspect.signature(function)  # type: ignore[arg-type]
        bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
        return str(inspect.Signature(bare))

    assert parameters(clipita.load) == (
        "(name_or_path='clipita-mini', *, backend='onnx', precision=None, threads=None, providers=None, "
        "revision=None, cache_dir=None, local_files_only=False, exact=False)"
    )
    assert parameters(clipita.encode_text) == "(texts, *, batch_size=64, on_truncate='warn')"
    assert parameters(clipita.encode_image) == "(images, *, crop='auto', batch_size=32)"
    assert (
        parameters(clipita.zero_shot)
        == "(images, labels, *, templates=None, top_k=None, min_cosine=None, crop='auto', batch_size=32)"
    )
    assert parameters(clipita.Model.iter_encode_image) == "(self, images, *, crop='auto', batch_size=32)"
    assert parameters(clipita.Model.label_bank) == "(self, labels, *, templates=None)"
    for name in ("encode_text", "encode_image", "zero_shot"):
        method = parameters(getattr(clipita.Model, name))
        assert method.replace("(self, ", "(") == parameters(getattr(clipita, name))


def test_the_errors_are_one_tree() -> None:
    for name in clipita.__all__:
        if name.endswith("Error"):
            assert issubclass(getattr(clipita, name), clipita.ClipitaError)
    assert issubclass(clipita.ImageError, ValueError)
    assert issubclass(clipita.TextError, ValueError)
    assert issubclass(clipita.ModelNotFoundError, LookupError)


def test_an_import_loads_nothing_heavy() -> None:
    heavy = ["jax", "flax", "torch", "onnx", "onnxruntime", "tokenizers", "huggingface_hub", "click", "tqdm", "pyarrow"]
    code = f"import sys, clipita; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_submodules_do_not_shadow_functions() -> None:
    code = "import clipita.cli, clipita.zero_shot; import clipita; print(callable(clipita.zero_shot))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"


# Every part may import these; they import each other only for errors.
LEAVES = {"errors", "_cpus", "_limits", "_memory", "_process", "_strict", "_tokenizer_json"}
# Each part of the package, and the others that it may import. Nothing imports clipita_train or benchmarks.
ARROWS: dict[str, set[str]] = {
    **{leaf: {"errors"} for leaf in LEAVES},
    "_geometry": set(),
    "_color": set(),
    "_jpeg": set(),
    "_jpeg2000": set(),
    "_avif": set(),
    "_libtiff": set(),
    "_budget": set(),
    "_bounds": {"_avif", "_jpeg", "_jpeg2000"},
    "_decode": {"_bounds", "_budget", "_color", "_geometry", "_jpeg", "_libtiff"},
    "images": {"_budget", "_color", "_decode", "_geometry"},
    "tokenizer": set(),
    "bundle": set(),
    "known": set(),
    "italian": set(),
    "italian_labels": set(),
    "_download": set(),
    "_repository": {"_download", "bundle"},
    "hub": {"_repository", "bundle", "known"},
    "towers": {"towers", "bundle", "images", "tokenizer"},
    "convert": {"convert", "towers", "_repository", "bundle", "images", "tokenizer"},
    "_graph": {"bundle", "convert", "hub"},
    "backends.results": set(),
    "backends.onnx": {"_graph", "backends.results", "bundle"},
    "backends.flax": {"backends.results", "bundle", "towers", "convert"},
    "zero_shot": {"tokenizer", "italian"},
    "_open": {"bundle", "hub", "known", "convert", "images", "tokenizer", "towers", "backends.onnx"},
    "_image_encoder": {"backends.backend", "images"},
    "model": {
        "_image_encoder",
        "_open",
        "backends.backend",
        "bundle",
        "convert",
        "images",
        "italian",
        "tokenizer",
        "zero_shot",
    },
    "load": {"_open", "backends.backend", "backends.flax", "backends.onnx", "model"},
    "_default": {"backends.backend", "images", "load", "model", "tokenizer", "zero_shot"},
    "__init__": {"_default", "load", "model", "zero_shot"},
    "photo_files": set(),
    "_embeddings": {"photo_files"},
    "_embed": {"_embeddings", "photo_files", "model", "images"},
    "_check": {"photo_files", "convert", "model"},
    "_cli_options": {"images", "load"},
    "_cli_models": {"_check", "_cli_options", "_open", "bundle", "hub", "known", "convert", "load"},
    "_cli_embed": {"_cli_options", "_embed", "images", "load"},
    "_cli_zero_shot": {"_cli_options", "images", "load", "photo_files", "zero_shot", "model"},
    "_train_command": {"_cli_options"},
    "cli": {"_cli_embed", "_cli_models", "_cli_options", "_cli_zero_shot", "photo_files"},
}


def part_of(module: str) -> str:
    parts = module.split(".")[1:]
    if not parts:
        return "__init__"
    return ".".join(parts[:2]) if parts[0] == "backends" else parts[0]


def test_imports_follow_the_arrows() -> None:
    for path in PACKAGE.rglob("*.py"):
        inside = path.relative_to(PACKAGE).with_suffix("").parts
        if inside[-1] == "__init__" and len(inside) > 1:
            inside = inside[:-1]
        if inside == ("backends",):
            assert path.read_text().strip() == ""
            continue
        part = part_of(".".join(("clipita", *inside)))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} has a relative import"
                modules = [node.module or ""]
                if node.module in ("clipita", "clipita.backends"):
                    modules = [f"{node.module}.{alias.name}" for alias in node.names if alias.name != "__version__"]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                continue
            for module in modules:
                root = module.split(".")[0]
                # clipita-train begins outside clipita_train, which cannot be imported without its extra.
                is_command = part == "_train_command" and module == "clipita_train.cli"
                assert root not in ("clipita_train", "benchmarks") or is_command, f"{path} imports {module}"
                assert root != "onnxruntime" or part == "backends.onnx", f"{path} imports {module}"
                if root == "clipita":
                    assert part_of(module) in ARROWS[part] | LEAVES, f"{path}: {part} must not import {module}"
