"""Run the towers on JAX. No other backend imports it."""

# JAX and Flax leave parts of their interfaces without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import os
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax.typing import DTypeLike
from safetensors import SafetensorError
from safetensors.numpy import load_file

from clipita.backends.results import checked
from clipita.bundles.bundle import WEIGHTS, Bundle
from clipita.convert.weights.quantize import dequantize
from clipita.errors import BackendError, CheckpointError
from clipita.system.arrays import FloatArray, IntArray, Pixels
from clipita.towers.config import ClipTextConfig, DualConfig
from clipita.towers.dual import DualEncoder
from clipita.towers.parameters import check_table, set_parameters
from clipita.towers.shapes import parameter_shapes

State: TypeAlias = "nnx.State[Any, Any]"

_LENGTH_STEP = 8  # lengths are padded to its multiples: fewer shapes, and each shape is compiled once


class FlaxBackend:
    """Run a bundle's weights through the Flax towers, on the device that JAX has.

    Args:
        bundle: A verified bundle.
        precision: One of the bundle's precisions; all of them share the weights.
        towers: The architecture that the bundle describes, if it has been read already; None means to read it here.
        dtype: The type that matrix products and convolutions are computed in (see `DualEncoder`); None means bfloat16
            on accelerators, and float32 on CPUs, most of which have no units for less.

    Raises:
        BackendError: The bundle has no such precision.
        CheckpointError: The weights are not those of the architecture.
    """

    name = "flax"
    text_runs = 1  # JAX uses all CPUs for each

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: str,
        towers: DualConfig | None = None,
        dtype: DTypeLike | None = jnp.float32,
    ) -> None:
        if precision not in bundle.config.precisions:
            raise BackendError(
                f"{bundle.config.name!r} has no precision {precision!r}, only {[*bundle.config.precisions]}"
            )
        config = towers or DualConfig.from_bundle(bundle.config)
        self._name, self._width = bundle.config.name, config.embed_dim
        self._text_positions = config.text.positions
        # A tower that sees padding would also see the padding that is added here.
        sees_padding = isinstance(config.text, ClipTextConfig) and config.text.attention == "full"
        self._length_step = 1 if sees_padding else _LENGTH_STEP
        try:
            table = dequantize(load_file(bundle.path(WEIGHTS)))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{str(bundle.path(WEIGHTS))!r} cannot be read: {error}") from error
        # This comes before the towers are traced: a damaged file may ask for hundreds of layers, which takes minutes.
        check_table(table, parameter_shapes(config))
        # The initial weights are never computed: only their shapes are needed.
        fast = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
        computed_in = fast if dtype is None else dtype
        model = nnx.eval_shape(lambda: DualEncoder(config, folded=True, dtype=computed_in, rngs=nnx.Rngs(0)))
        set_parameters(model, table)
        self.providers = (jax.default_backend(),)
        self._process = os.getpid()
        self._image, self._text = compiled(model)
        self._positions = _compiled_positions(model)

    def encode_pixels(self, pixels: Pixels) -> FloatArray:
        """Embed images: (B, S, S, 3) RGB pixels to (B, E) of unit norm."""
        self._check_process()
        embeddings = np.asarray(self._image(_pad_batch(pixels)))[: len(pixels)]
        return checked(embeddings, len(pixels), self._width, f"{self._name!r}: the image tower")

    def encode_positions(self, pixels: Pixels) -> FloatArray:
        """Compute projected vectors without a norm at all positions: (B, S, S, 3) RGB pixels to (B, N, E)."""
        self._check_process()
        vectors = np.asarray(self._positions(_pad_batch(pixels)))[: len(pixels)]
        flat = vectors.reshape(-1, vectors.shape[-1])
        checked(flat, len(flat), self._width, f"{self._name!r}: the image tower")
        return vectors

    def encode_tokens(self, input_ids: IntArray, attention_mask: IntArray) -> FloatArray:
        """Embed texts: (B, L) ids and mask to (B, E) of unit norm."""
        self._check_process()
        length = input_ids.shape[1]
        if length > self._text_positions:
            raise BackendError(f"the text tower reads up to {self._text_positions} tokens, but a batch has {length}.")
        padded = min(-(-length // self._length_step) * self._length_step, self._text_positions)
        ids, mask = (
            _pad_batch(np.pad(array.astype(np.int32), ((0, 0), (0, padded - length))))
            for array in (input_ids, attention_mask)
        )
        embeddings = np.asarray(self._text(ids, mask))[: len(input_ids)]
        return checked(embeddings, len(input_ids), self._width, f"{self._name!r}: the text tower")

    def _check_process(self) -> None:
        """Refuse to run in a forked child, where JAX would wait for threads that only the parent has."""
        if os.getpid() != self._process:
            raise BackendError(
                "backend='flax' does not run in a process that was forked after the model was loaded: JAX does not "
                "survive a fork. Start processes by multiprocessing.set_start_method('spawn'), or use backend='onnx'."
            )


def compiled(model: DualEncoder) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """Compile the two towers, each once for every shape of its input.

    Returns:
        A function of pixels (B, S, S, 3) uint8, and one of ids and mask (B, L). Both give embeddings (B, E) of unit
        norm.
    """
    graph, state = nnx.split(model)

    @jax.jit
    def image(state: State, pixels: jax.Array) -> jax.Array:
        model = nnx.merge(graph, state)
        return model.project_image(model.image_features(pixels))

    @jax.jit
    def text(state: State, input_ids: jax.Array, attention_mask: jax.Array) -> jax.Array:
        model = nnx.merge(graph, state)
        return model.project_text(model.text_features(input_ids, attention_mask))

    return partial(image, state), partial(text, state)


def _compiled_positions(model: DualEncoder) -> Callable[..., jax.Array]:
    """Compile the function of pixels (B, S, S, 3) uint8 that gives the vectors (B, N, E) at all positions."""
    graph, state = nnx.split(model)

    @jax.jit
    def positions(state: State, pixels: jax.Array) -> jax.Array:
        return nnx.merge(graph, state).image_positions(pixels)

    return partial(positions, state)


def _pad_batch(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Repeat the last row until there are a power of two of them.

    Rows of zeros would be texts without tokens, and the mean over no token is NaN.
    """
    size = 1 << (len(array) - 1).bit_length()
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])
