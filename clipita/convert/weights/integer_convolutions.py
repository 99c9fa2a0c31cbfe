"""Prepare the convolutions of an EfficientNet to be multiplied in integers, by what photographs show of their inputs.

Activations are rounded to 8 bits in fixed ranges. Those after a ReLU6 go from 0 to 6; the others have theirs in the
file of weights: `<block>.expand.input_range` and `head.input_range` of what these convolutions read, and
`<block>.project.output_range` of what is added to a block's input; float32 (2,), least and largest.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clipita.convert.weights.quantize import Stored, dequantize
from clipita.system.arrays import Array, FloatArray

RANGES = (".expand.input_range", ".head.input_range", ".project.output_range")


@dataclass(frozen=True)
class Activations:
    """The inputs and outputs of convolutions over some photographs, by the names of the convolutions.

    Attributes:
        means: (inputs,), the mean of each channel that is read.
        ranges: Name with `.input_range` or `.output_range` -> (2,), the least and the largest value of all channels.
    """

    means: Mapping[str, FloatArray]
    ranges: Mapping[str, FloatArray]


def integer_convolutions(
    stored: Mapping[str, Stored], table: Mapping[str, Array], activations: Activations
) -> dict[str, Stored]:
    """Add the ranges of activations to weights that are to be stored, and correct biases by what rounding took.

    A kernel that was rounded shifts the mean of its outputs, which the bias gives back.

    Args:
        stored: The weights, as `clipita.convert.weights.quantize.plan` returns them.
        table: Name -> float32, the same weights as they were.
        activations: What photographs show.
    """
    found = dict(stored)
    for name, mean in activations.means.items():
        kernel, bias = f"{name}.kernel", f"{name}.bias"
        parts = {part: stored[part].array() for part in (kernel, f"{kernel}.scale") if part in stored}
        lost = (table[kernel] - dequantize(parts)[kernel]).sum(axis=(2, 3))  # (outputs, inputs), or 1 if depthwise
        shift = lost[:, 0] * mean if lost.shape[1] == 1 else lost @ mean  # (outputs,)
        found[bias] = Stored(table[bias] + shift, stored[bias].dtype)
    ranges = {name: values for name, values in activations.ranges.items() if name.endswith(RANGES)}
    return found | {name: Stored(values, np.dtype(np.float32)) for name, values in ranges.items()}
