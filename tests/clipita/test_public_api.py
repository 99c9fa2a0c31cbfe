"""What users may count on: the names, their signatures, what an import costs, and who imports whom."""

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
        "Index",
        "LabelBank",
        "LabelScore",
        "Location",
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
        "locate",
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
    assert parameters(clipita.Model.locate) == "(self, image, text, *, method='auto', crop='auto')"
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
    code = "import clipita.cli.main, clipita.zero_shot; import clipita; print(callable(clipita.zero_shot))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"
