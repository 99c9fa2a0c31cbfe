"""Find the factors that even out activations before they are quantized to 8 bits.

A few channels of a transformer's activations are 10 to 100 times as large as the others, always the same ones, and of 8
bits that a whole batch shares the others get few. Dividing each channel by a factor of its own, and multiplying the
weights that it meets by the same, changes no product and moves the difficulty to the weights, which have a scale for
each output.

Source: SmoothQuant, arXiv:2211.10438; there the factors are folded into the layer norm before, which a layer norm that
is also added to the residual (BERT's) does not allow, and the middle of an MLP has none.
"""

from collections.abc import Mapping

import numpy as np

from clipita.system.arrays import Array, FloatArray

# How much of the difficulty goes to the weights. Mean cosines of int8 to float32 with 0.5, 0.6, 0.75: 0.9984, 0.9991,
# 0.9987 for the layers of multilingual-e5-small; 0.9992, 0.9992, 0.9992 for a random ViT-B/32 with such channels.
_SHARE = 0.6
_TINY = 1e-5  # a channel that is always 0, or that no weight uses, would be divided by 0
_MOST = 1e3


def smoothing(table: Mapping[str, Array], largest: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Return the factors that activations are multiplied by.

    Args:
        table: Name -> float32 weights.
        largest: Name of a kernel (inputs, outputs) -> (inputs,), the largest magnitude of each channel that it is
            multiplied by. Kernels with the same array share their input, and get the same factors.

    Returns:
        Name of a kernel -> (inputs,) float32 above 0, around 1.
    """
    sharing: dict[int, list[str]] = {}
    for name, magnitudes in largest.items():
        sharing.setdefault(id(magnitudes), []).append(name)
    found: dict[str, FloatArray] = {}
    for names in sharing.values():
        weights = np.max([np.abs(table[name]).max(axis=1) for name in names], axis=0)  # (inputs,)
        activations = np.maximum(largest[names[0]], _TINY)
        logs = _SHARE * np.log(activations) - (1 - _SHARE) * np.log(np.maximum(weights, _TINY))
        factors = np.exp(np.clip(logs.mean() - logs, -np.log(_MOST), np.log(_MOST))).astype(np.float32)
        for name in names:
            found[name] = factors
    return found
