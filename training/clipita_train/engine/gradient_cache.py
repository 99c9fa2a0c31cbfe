"""Train with large batches in little memory, by running the towers in chunks.

The loss and the gradients are those of the whole batch.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from clipita_train.engine.state import split_model
from clipita_train.engine.step import Batch, LossFn, Metrics

Embed = Callable[[nnx.Module, Batch, jax.Array | None], Any]
Compare = Callable[[nnx.Module, Any, Batch], tuple[jax.Array, Metrics]]


def cached_loss(embed: Embed, compare: Compare, *, chunks: int = 1) -> LossFn:
    """Return a loss function for `make_train_step` that keeps the activations of only one chunk in memory.

    The forward pass keeps only the embeddings of each chunk. The backward pass first computes the gradient of the loss
    by the embeddings. Then it runs each chunk again, with the same dropout keys and statistics as before, and adds up
    the gradients by the parameters. So towers run forward twice, and the result is the same as for all chunks in memory
    at once.

    Chunk c of n holds rows c, c + n, c + 2n, ..., so that every device keeps its own rows where the batch is split over
    devices. Its key is `fold_in(key, c)`; with one chunk, the key is used as it is. Statistics that towers gather
    (batch normalization) go from chunk to chunk.

    Args:
        embed: (model, rows of the batch, key) to embeddings: a tree of arrays with one row for each example.
        compare: (model, embeddings of the whole batch, batch) to (loss, metrics); it must not change the model.
        chunks: Number of chunks.

    Returns:
        The loss function; it raises a ValueError if the rows do not divide by `chunks`.

    Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (arXiv:2101.06983).
    """

    def loss_fn(model: nnx.Module, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, Metrics]:
        return compare(model, _in_chunks(embed, model, batch, key, chunks), batch)

    return loss_fn


def _in_chunks(embed: Embed, model: nnx.Module, batch: Batch, key: jax.Array | None, chunks: int) -> Any:
    if chunks == 1:
        return embed(model, batch, key)
    wrong = {leaf.shape for leaf in jax.tree.leaves(batch) if leaf.ndim == 0 or leaf.shape[0] % chunks}
    if wrong:
        raise ValueError(f"batch entries of shape {sorted(wrong)} do not divide into {chunks} chunks")
    graphdef, params, rest = split_model(model)

    @jax.checkpoint  # keeps the inputs, which are small or in memory anyway, but not the activations
    def chunk(params: Any, rest: Any, rows: Batch, number: jax.Array) -> tuple[Any, Any]:
        part = nnx.merge(graphdef, params, rest)
        embeddings = embed(part, rows, None if key is None else jax.random.fold_in(key, number))
        return split_model(part)[2], embeddings

    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, chunks, *leaf.shape[1:]).swapaxes(0, 1), batch)  # (n, B / n, ...)
    numbers = jax.numpy.arange(chunks)
    rest, embeddings = jax.lax.scan(lambda rest, x: chunk(params, rest, *x), rest, (rows, numbers))
    nnx.update(model, rest)
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:]), embeddings)
