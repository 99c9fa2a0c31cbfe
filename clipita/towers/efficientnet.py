"""Define the EfficientNet-lite image tower, from normalized pixels (B, S, S, 3) to pooled features (B, 1280).

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (arXiv:1905.11946), in
the "lite" form of the TensorFlow TPU repository: no squeeze-and-excitation, ReLU6, stem and head of fixed width.
"""

# JAX and Flax leave parts of their interfaces without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from clipita.towers.efficientnet_config import BlockShape, EfficientNetLiteConfig, block_shapes, same_padding

BATCH_NORM_EPSILON = 1e-3


class ConvNorm(nnx.Module):
    """A convolution and a batch normalization with fixed statistics, which together are one affine map.

    The kernel is (k, k, inputs or 1, outputs). With `folded=True` the module holds the product, a kernel and a bias.
    Otherwise it keeps kernel, scale, bias, mean and variance apart, and multiplies them out when called: weights can be
    trained in their original parametrization while the statistics, which are no `nnx.Param`, stay as they are.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, *, depthwise: bool, folded: bool, rngs: nnx.Rngs
    ) -> None:
        fan_in = kernel * kernel * (1 if depthwise else inputs)
        shape = (kernel, kernel, 1 if depthwise else inputs, outputs)
        self.stride = stride
        self.depthwise = depthwise
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), shape) * math.sqrt(2 / fan_in))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.scale = None if folded else nnx.Param(jnp.ones(outputs))
        self.mean = None if folded else nnx.BatchStat(jnp.zeros(outputs))
        self.variance = None if folded else nnx.BatchStat(jnp.ones(outputs))

    def folded(self) -> tuple[jax.Array, jax.Array]:
        """Return kernel and bias with the normalization multiplied in."""
        kernel, bias = self.kernel[...], self.bias[...]
        if self.scale is None or self.mean is None or self.variance is None:
            return kernel, bias
        factor = self.scale[...] * lax.rsqrt(self.variance[...] + BATCH_NORM_EPSILON)
        return kernel * factor[None, None, None], bias - self.mean[...] * factor

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve and normalize: (B, H, W, inputs) -> (B, H/stride, W/stride, outputs)."""
        kernel, bias = (array.astype(x.dtype) for array in self.folded())
        if self.depthwise:
            y = depthwise_conv(x, kernel[:, :, 0], self.stride)
        elif kernel.shape[0] == 1:
            y = jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0])
        else:
            y = lax.conv_general_dilated(
                x, kernel, (self.stride, self.stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        return y + bias[None, None, None]


class InvertedBottleneck(nnx.Module):
    """A block that expands by a 1x1 convolution, filters each channel by itself, and projects back.

    It has a skip connection if the shapes allow one.

    Attributes:
        rematerialize: Compute its inner values again for gradients instead of keeping them; training sets it.
    """

    def __init__(self, shape: BlockShape, *, folded: bool, rngs: nnx.Rngs) -> None:
        conv = partial(ConvNorm, folded=folded, rngs=rngs)
        self.rematerialize = False
        self.has_skip = shape.has_skip
        self.expand = conv(shape.inputs, shape.expanded, 1, 1, depthwise=False) if shape.has_expansion else None
        self.depthwise = conv(shape.expanded, shape.expanded, shape.kernel, shape.stride, depthwise=True)
        self.project = conv(shape.expanded, shape.outputs, 1, 1, depthwise=False)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Compute the block: (B, H, W, inputs) -> (B, H/stride, W/stride, outputs)."""
        if self.rematerialize:
            return nnx.remat(InvertedBottleneck.output_of)(self, x)
        return self.output_of(x)

    def output_of(self, x: jax.Array) -> jax.Array:
        """Compute the block without rematerialization."""
        y = x if self.expand is None else jax.nn.relu6(self.expand(x))
        y = self.project(jax.nn.relu6(self.depthwise(y)))
        return x + y if self.has_skip else y


class EfficientNetLite(nnx.Module):
    """An EfficientNet-lite without its classifier.

    Args:
        config: Its size.
        folded: Hold each convolution and its normalization as one kernel and bias, as in bundles, instead of apart.
        dtype: The type that all but the mean at the end is computed in; weights stay as they are.
        rngs: The random numbers for the initial weights.
    """

    def __init__(
        self,
        config: EfficientNetLiteConfig,
        *,
        folded: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.dtype = dtype
        conv = partial(ConvNorm, folded=folded, rngs=rngs)
        shapes = block_shapes(config)
        self.stem = conv(3, config.stem_width, 3, 2, depthwise=False)
        self.blocks = nnx.List([InvertedBottleneck(shape, folded=folded, rngs=rngs) for shape in shapes])
        self.head = conv(shapes[-1].outputs, config.head_width, 1, 1, depthwise=False)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Compute pooled features (B, head_width) float32 of normalized pixels (B, S, S, 3) float32, for any S."""
        return self._last_maps(x).mean(axis=(1, 2), dtype=jnp.float32)

    def positions(self, x: jax.Array) -> jax.Array:
        """Compute the features (B, H * W, head_width) float32 whose mean the pooled ones are."""
        maps = self._last_maps(x)
        return maps.reshape(maps.shape[0], -1, maps.shape[-1]).astype(jnp.float32)

    def _last_maps(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu6(self.stem(x.astype(self.dtype)))
        for block in self.blocks:
            x = block(x)
        return jax.nn.relu6(self.head(x))


def _depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolve each channel by itself with SAME padding: (B, H, W, C) by (k, k, C) -> (B, H/stride, W/stride, C).

    On CPUs XLA's own grouped convolution is scalar code, while k*k shifted slices, multiplied and summed, become one
    vectorized loop. On two AVX-512 cores, for a batch of 32, the milliseconds of the forward pass, the gradient by
    pixels and the gradient by the kernel are:

        shape           grouped convolution    here
        14x14x672 k5 s1    194 / 194 / 778       7 / 14 / 29
        28x28x240 k5 s2     65 / 1118 / 217     10 / 23 / 13
        56x56x144 k3 s1    441 / 444 / 2637     66 / 74 / 86
    """
    return lax.platform_dependent(
        x, kernel, cpu=partial(_shifted_conv, stride=stride), default=partial(_grouped_conv, stride=stride)
    )


depthwise_conv = jax.custom_vjp(_depthwise_conv, nondiff_argnums=(2,))


def _depthwise_forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return depthwise_conv(x, kernel, stride), (x, kernel)


def _depthwise_backward(
    stride: int, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals

    def grouped(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(partial(_grouped_conv, stride=stride), x, kernel)[1](gradient)

    def shifted(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _pixel_gradient(x, kernel, gradient, stride), _kernel_gradient(x, gradient, kernel.shape[0], stride)

    return lax.platform_dependent(x, kernel, gradient, cpu=shifted, default=grouped)


depthwise_conv.defvjp(_depthwise_forward, _depthwise_backward)


def _grouped_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        "SAME",
        feature_group_count=x.shape[-1],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _shifted_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return _weighted_sum(_shifted_slices(_pad_same(x, kernel.shape[0], stride), kernel.shape[0], stride), kernel)


def _pixel_gradient(x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int) -> jax.Array:
    """Compute the gradient by pixels: the same sum over the gradient, spread by the stride, with a reversed kernel."""
    size, zero = kernel.shape[0], jnp.zeros((), gradient.dtype)
    before = [size - 1 - same_padding(n, size, stride)[0] for n in x.shape[1:3]]
    spread = [(n - 1) * stride + 1 for n in gradient.shape[1:3]]
    after = [n + size - 1 - b - s for n, b, s in zip(x.shape[1:3], before, spread, strict=True)]
    rows, columns = ((b, a, stride - 1) for b, a in zip(before, after, strict=True))
    padded = lax.pad(gradient, zero, ((0, 0, 0), rows, columns, (0, 0, 0)))
    return _weighted_sum(_shifted_slices(padded, size, 1), kernel[::-1, ::-1])


def _kernel_gradient(x: jax.Array, gradient: jax.Array, size: int, stride: int) -> jax.Array:
    """Compute the gradient by the kernel, summed over the batch first: a sum over pixels first does not vectorize."""

    def add_image(totals: list[jax.Array], image: tuple[jax.Array, jax.Array]) -> tuple[list[jax.Array], None]:
        pixels, gradient = image  # (H, W, C), (H/stride, W/stride, C)
        slices = _shifted_slices(pixels[None], size, stride)
        return [total + s[0] * gradient for total, s in zip(totals, slices, strict=True)], None

    zeros = [jnp.zeros(gradient.shape[1:], gradient.dtype)] * (size * size)
    totals, _ = lax.scan(add_image, zeros, (_pad_same(x, size, stride), gradient))
    return jnp.stack([total.sum((0, 1)) for total in totals]).reshape(size, size, -1)


def _weighted_sum(slices: list[jax.Array], kernel: jax.Array) -> jax.Array:
    weights = kernel.reshape(len(slices), 1, 1, 1, -1)
    total = slices[0] * weights[0]
    for taken, weight in zip(slices[1:], weights[1:], strict=True):
        total += taken * weight
    return total


def _pad_same(x: jax.Array, kernel: int, stride: int) -> jax.Array:
    rows, columns = (same_padding(size, kernel, stride) for size in x.shape[1:3])
    return jnp.pad(x, ((0, 0), rows, columns, (0, 0)))


def _shifted_slices(padded: jax.Array, kernel: int, stride: int) -> list[jax.Array]:
    """Return the pixels under each of the k*k taps, row by row: k*k arrays (B, H/stride, W/stride, C)."""
    rows, columns = ((size - kernel) // stride * stride + 1 for size in padded.shape[1:3])
    return [padded[:, i : i + rows : stride, j : j + columns : stride] for i in range(kernel) for j in range(kernel)]
