"""Write the best weights of a run as a bundle, and as a folder for transformers, and check both."""

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from clipita.backends.flax import compiled
from clipita.backends.onnx import OnnxBackend
from clipita.bundles.bundle import Bundle
from clipita.convert.export import Provenance, write_dual_bundle
from clipita.convert.folder.origin import Origin
from clipita.convert.foreign import convert
from clipita.convert.to_transformers import write_vision_text_dual_encoder
from clipita.towers.dual import DualEncoder
from clipita_train.engine.checkpoint import check_settings
from clipita_train.engine.loop import load_best
from clipita_train.losses.configured import PairLoss
from clipita_train.pairs.model import LOSS, dual_config, dual_table
from clipita_train.pairs.recipe import PairRecipe
from clipita_train.pairs.run import DATA, load_run, settings_of
from clipita_train.towers.parity import agree, size_of


@dataclass(frozen=True)
class PairExported:
    """A bundle that was written.

    Attributes:
        bundle: The bundle.
        size: Bytes of all its files.
        agreement: Smallest cosine between embeddings of the bundle and of the trained towers, for the same picture or
            text.
    """

    bundle: Bundle
    size: int
    agreement: float


def export(
    recipe: PairRecipe, run: Path, folder: Path, *, revision: str, transformers: Path | None = None
) -> PairExported:
    """Write the bundle of a finished run.

    Args:
        recipe: The recipe, as it was trained.
        run: The folder of the run.
        folder: Made if missing; a bundle in it is replaced.
        revision: The version that the bundle states.
        transformers: A folder to write a VisionTextDualEncoder to, or None.

    Raises:
        CheckpointError: The bundle, or the folder for transformers when it is read back, gives other embeddings than
            the trained towers; or transformers has no such model.
        FileNotFoundError: There is no run in the folder, or it is not finished.
        ValueError: The run was made with another recipe.
    """
    image, text, model = load_run(replace(recipe, dtype="float32"))
    check_settings(run, {**asdict(recipe.training), **settings_of(recipe)}, ignored=(DATA,))
    model = load_best(model, recipe.training, run)
    loss: PairLoss = getattr(model, LOSS)
    logit_bias = float(loss.logit_bias) if recipe.loss.kind == "sigmoid" else None
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer_file = Path(scratch) / "tokenizer.json"
        tokenizer_file.write_text(text.tokenizer_json, encoding="utf-8")
        bundle = write_dual_bundle(
            folder,
            dual_table(model),
            dual_config(recipe, image, text),
            provenance=Provenance(recipe.name, recipe.licence, "clipita-train run", revision),
            tokenizer=text.tokenizer,
            tokenizer_file=tokenizer_file,
            logit_scale=float(loss.logit_scale),
            logit_bias=logit_bias,
            templates=recipe.templates,
        )
    trained = _Trained(model, text.tokenizer.max_tokens)
    agreement = agree(bundle, trained, OnnxBackend(bundle, precision="fp32"))
    if transformers is not None:
        write_vision_text_dual_encoder(bundle, transformers)
        with tempfile.TemporaryDirectory() as scratch:
            again = convert(transformers, Path(scratch), Origin(recipe.name, "a folder", revision, recipe.licence))
            agree(again, trained, OnnxBackend(again, precision="fp32"))
    return PairExported(bundle, size_of(folder), agreement)


class _Trained:
    """The trained towers, with the interface of a backend; texts are padded to one length, so as to compile once."""

    def __init__(self, model: DualEncoder, max_tokens: int) -> None:
        model.eval()
        self._image, self._text = compiled(model)
        self._max_tokens = max_tokens

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Embed pixels (B, S, S, 3) uint8."""
        return np.asarray(self._image(pixels))

    def encode_tokens(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """Embed token ids and their mask (B, L)."""
        missing = ((0, 0), (0, self._max_tokens - input_ids.shape[1]))
        ids, mask = (np.pad(array.astype(np.int32), missing) for array in (input_ids, attention_mask))
        return np.asarray(self._text(ids, mask))
