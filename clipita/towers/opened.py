"""Read a bundle's description of its inputs and its towers once, for all code that runs or rewrites the bundle."""

import dataclasses
import functools
from typing import TYPE_CHECKING

from clipita.bundles.bundle import MANIFEST, Bundle
from clipita.images.pixels import Preprocessing
from clipita.text.tokenizer import TokenizerConfig

if TYPE_CHECKING:
    from clipita.towers.config import DualConfig
    from clipita.towers.positions import Meaning


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """A verified bundle with its description in a checked form. Made by `OpenedModel.of`.

    Attributes:
        bundle: The folder and its files.
        preprocessing: How an image becomes the pixels that the image tower reads.
        tokenizer: How a text becomes the tokens that the text tower reads.
    """

    bundle: Bundle
    preprocessing: Preprocessing
    tokenizer: TokenizerConfig

    @classmethod
    def of(cls, bundle: Bundle) -> "OpenedModel":
        """Read a bundle's rules for images and texts.

        Raises:
            CheckpointError: A key or a value of the rules is not known.
        """
        where = repr(str(bundle.path(MANIFEST)))
        return cls(
            bundle,
            Preprocessing.from_dict(bundle.config.image["preprocessing"], f"{where}: image.preprocessing"),
            TokenizerConfig.from_dict(bundle.config.text["tokenizer"], f"{where}: text.tokenizer"),
        )

    @functools.cached_property
    def towers(self) -> "DualConfig":
        """The towers' kinds and sizes, read when they are first asked for: ONNX Runtime does not need them.

        Raises:
            CheckpointError: As `DualConfig.from_bundle`.
        """
        from clipita.towers.config import DualConfig  # takes longer to import than a bundle takes to read

        return DualConfig.from_bundle(self.bundle.config, self.preprocessing)

    def meaning_of_positions(self) -> "Meaning | None":
        """Return what the vectors of the image tower's positions mean, or None of a tower that is not known here."""
        from clipita.towers.config import are_known
        from clipita.towers.positions import meaning_of_positions

        return meaning_of_positions(self.towers) if are_known(self.bundle.config) else None
