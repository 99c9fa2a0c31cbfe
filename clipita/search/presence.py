"""Judge whether an archive shows what was asked for at all, or whether the nearest photographs merely are the nearest.

The highest cosine says most of it. Where the query lies among other phrases, the background, says more: the phrases
that fit the first photograph best mean nearly what the query means, if the photograph shows that; and a query that many
phrases are near to finds a high cosine in any archive. So does any query in a large one. The four are weighed by a
logistic regression that was found on photographs and queries that no model was trained on. docs/en/guide/search.md says
which, and how often this errs.

All numbers hold for one model. `background/clipita-mini.npz` has those of clipita-mini; of others nothing is judged.
"""

import dataclasses
import io
from importlib import resources

import numpy as np
import numpy.typing as npt

from clipita.search.cosines import FloatVectors

_NEAREST = 6


@dataclasses.dataclass(frozen=True, eq=False)
class Background:
    """Phrases that queries and labels are compared with.

    Attributes:
        vectors: (B, E) float32 of unit norm, those of the phrases in `background/phrases.txt`.
        logit_scale: Of the model that made them.
    """

    vectors: FloatVectors
    logit_scale: float


@dataclasses.dataclass(frozen=True, eq=False)
class Presence:
    """Holds what a model's cosines say about whether something is there.

    Attributes:
        fingerprints: Of the model, in each way of preparing images.
        background: Of the model.
        weights: (4,) of the evidence, in the order of `evidence`.
        bias: Is added to it.
        threshold: What is below is held to be absent.
    """

    fingerprints: tuple[str, ...]
    background: Background
    weights: npt.NDArray[np.float64]
    bias: float
    threshold: float

    def is_there(self, query: FloatVectors, cosine: float, first: FloatVectors, count: int) -> bool:
        """Tell whether the photograph that fits a sentence best shows what it says.

        Args:
            query: (E,) the sentence's vector.
            cosine: That of the sentence and the photograph.
            first: (E,) the photograph's vector.
            count: How many photographs there are.
        """
        evidence = self.evidence(query, cosine, first, count)
        return float(self.weights @ evidence + self.bias) >= self.threshold

    def evidence(self, query: FloatVectors, cosine: float, first: FloatVectors, count: int) -> npt.NDArray[np.float64]:
        """Return what speaks for the query, and against it.

        Returns:
            (4,): the cosine; how near to the query the phrases are that fit the photograph; how near the query's sixth
            nearest phrase is; and the logarithm of the number of photographs.
        """
        # By einsum in this one thread: those of a BLAS library go on waiting for work, in the way of the next query's.
        near, cosines = np.einsum("be,qe->qb", self.background.vectors, np.stack([query, first]))  # (B,) each
        fits = self.background.logit_scale * cosines.astype(np.float64)
        shares = np.exp(fits - np.logaddexp.reduce(fits))
        return np.array([cosine, shares @ near, np.partition(near, -_NEAREST)[-_NEAREST], np.log(count)])

    def to_bytes(self) -> bytes:
        """Return the file that `read_presence` reads; the vectors are in 8 bits, 0.5 MB of 2,033 phrases."""
        scales = np.abs(self.background.vectors).max(axis=1, keepdims=True) / 127  # (B, 1)
        file = io.BytesIO()
        np.savez_compressed(
            file,
            fingerprints=np.array(self.fingerprints),
            background=np.rint(self.background.vectors / scales).astype(np.int8),
            scales=scales.astype(np.float32),
            logit_scale=np.array(self.background.logit_scale),
            weights=self.weights,
            bias=np.array(self.bias),
            threshold=np.array(self.threshold),
        )
        return file.getvalue()


def read_presence(fingerprint: str) -> Presence | None:
    """Return what is known of a model's cosines, or None of a model of which nothing is.

    Args:
        fingerprint: That of its embeddings.
    """
    with (
        resources.files("clipita.search").joinpath("background/clipita-mini.npz").open("rb") as file,
        np.load(file) as stored,
    ):
        fingerprints = tuple(str(each) for each in stored["fingerprints"])
        if fingerprint not in fingerprints:
            return None
        background = stored["background"].astype(np.float32) * stored["scales"]
        background /= np.linalg.norm(background, axis=1, keepdims=True)
        return Presence(
            fingerprints,
            Background(background, float(stored["logit_scale"])),
            stored["weights"],
            float(stored["bias"]),
            float(stored["threshold"]),
        )


def background_phrases() -> tuple[str, ...]:
    """Return what photographs commonly show, as 2,033 Italian phrases with their articles."""
    text = resources.files("clipita.search").joinpath("background/phrases.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if not line.startswith("#"))
