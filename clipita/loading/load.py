"""Load a model by its name or its folder."""

import os
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Literal

from clipita.backends.backend import Backend
from clipita.convert.cache import label_folder
from clipita.errors import BackendError, CheckpointError
from clipita.label_store import LabelStore
from clipita.loading.open import lasting_name, open_model
from clipita.model import Model, is_count
from clipita.system.cpus import usable_cpus

DEFAULT_MODEL = "clipita-mini"


def load(
    name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    backend: Literal["onnx", "flax"] = "onnx",
    precision: str | None = None,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    exact: bool = False,
) -> Model:
    """Load a model.

    A checkpoint in another layout (CLIP, SigLIP, VisionTextDualEncoder, hybrid-clip, OpenCLIP, sentence-transformers'
    mCLIP, ONNX exports of transformers.js) is turned into a bundle once, without PyTorch. The bundle is kept below
    `cache_dir`/clipita, or $HF_HOME/clipita, and later loads use it as it is; nothing is written to the folder that a
    checkpoint is in. `clipita models` lists checkpoints that read Italian.

    A model is a program. Its files are checked, but a model of an author whom you do not trust can still use all time
    and memory that there is. Limit the process that loads it (ulimit, a container).

    A license with unusual demands (GPL, or no commercial use) is logged once, as a warning of the logger "clipita";
    `Model.license` has the license of any model.

    Args:
        name_or_path: An embedded model ("clipita-mini"), a folder, or a name on the Hugging Face hub ("owner/name").
            The hub is asked only for what is not on this machine yet.
        backend: "onnx" (ONNX Runtime) or "flax" (pip install 'clipita[flax]').
        precision: "fp32", "int8" or another precision of the bundle; None means the one that it recommends. "int8" is
            made once, from the float32 weights, and kept like a converted checkpoint; with ONNX Runtime its embeddings
            then depend a little, some 1e-3, on the batch that they are computed in. For ONNX exports, the variant:
            "fp32", "fp16", "int8" (_quantized), or the ending of its file names.
        threads: Threads for the towers and for decoding; None means the CPUs this process may use.
        providers: ONNX Runtime execution providers, e.g. ["CUDAExecutionProvider"]; None means the CPU.
        revision: Branch, tag or commit on the hub.
        cache_dir: The folder for the hub's files and for bundles that are made here; None means the hub's own cache.
        local_files_only: Never open a connection.
        exact: Prepare images as torchvision does, to the bit. By default large JPEGs are decoded in fewer pixels (at
            least three times what the tower reads) and only the crop is resized, up to four times as fast; embeddings
            of photographs then have a cosine of 0.9999 to the exact ones, on average, and of 0.996 at worst. With
            backend="flax" on an accelerator, also compute in float32 instead of bfloat16.

    Returns:
        The model.

    Raises:
        ModelNotFoundError: There is no such model, or it is not here and may not or cannot be fetched.
        CheckpointError: The model is damaged, or of a kind that this clipita does not read.
        BackendError: The backend, precision, provider or number of threads is not available.

    Example:
        >>> clipita.load("clipita-mini").encode_text("un gatto nero").shape
        (256,)
    """
    if threads is not None and not is_count(threads):
        raise BackendError(f"threads must be a number from 1 on, or None for all usable CPUs, not {threads!r}.")
    if backend not in ("onnx", "flax"):
        raise BackendError(f"there is no backend {backend!r}: choose 'onnx' or 'flax'.")
    opened = open_model(
        name_or_path,
        precision=precision,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    bundle = opened.bundle
    if precision is None:
        precision = bundle.config.recommended_precision
    if precision not in bundle.config.precisions:
        known = ", ".join(map(repr, bundle.config.precisions))
        raise BackendError(f"{bundle.config.name!r} has no precision {precision!r}: choose {known}.")
    if backend == "onnx":
        from clipita.backends.onnx import OnnxBackend

        engine: Backend = OnnxBackend(bundle, precision=precision, threads=threads, providers=providers)
    else:
        if bundle.config.image.get("kind") == "onnx":
            raise BackendError(
                f"{bundle.config.name!r} is an ONNX export, which only backend='onnx' runs. For Flax, load the "
                "checkpoint that it was made from."
            )
        if threads is not None or providers is not None:
            raise BackendError("threads and providers are for backend='onnx'; JAX has its own settings for both.")
        try:
            from clipita.backends.flax import FlaxBackend
        except ModuleNotFoundError as error:
            raise BackendError(
                f"backend='flax' needs {error.name}, which is not installed: pip install 'clipita[flax]'"
            ) from error
        engine = FlaxBackend(bundle, precision=precision, towers=opened.towers, dtype="float32" if exact else None)
    settings = {
        "name_or_path": lasting_name(name_or_path),
        "backend": backend,
        "precision": precision,
        "threads": threads,
        "providers": providers and tuple(providers),
        "revision": revision,
        "cache_dir": cache_dir and os.path.abspath(cache_dir),
        "local_files_only": local_files_only,
        "exact": exact,
    }
    fingerprint = bundle.fingerprint(precision, exact=exact)
    # Vectors that two engines compute differ in their last digits, and on an accelerator in more.
    computed_by = "-".join((fingerprint, backend, *engine.providers))
    return Model(
        opened,
        engine,
        precision=precision,
        decode_threads=threads or usable_cpus(),
        exact=exact,
        label_store=LabelStore(partial(label_folder, cache_dir), computed_by, bundle.config.embed_dim),
        pickled_as=(_load_again, (tuple(settings.items()), fingerprint)),
    )


@lru_cache(maxsize=2)  # joblib and others unpickle a model for every task
def _load_again(settings: tuple[tuple[str, Any], ...], fingerprint: str) -> Model:
    """Load a pickled model.

    Raises:
        CheckpointError: The model of its name is another one here.
        ModelNotFoundError, BackendError: As `load`.
    """
    model = load(**dict(settings))
    if model.fingerprint != fingerprint:
        raise CheckpointError(
            f"the pickled model {model.name!r} had the fingerprint {fingerprint}, and the one of that name here has "
            f"{model.fingerprint}: their embeddings do not mix. Use the same version of clipita and of the model in "
            "both places."
        )
    return model
