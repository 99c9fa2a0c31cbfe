"""Big batches on small machines: towers in chunks, the loss over all of them, the gradients of one plain step."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from clipita_train.engine.state import split_model
from clipita_train.engine.step import Batch, LossFn, Metrics

Embed = Callable[[nnx.Module, Batch, jax.Array | None], Any]
Compare = Callable[[nnx.Module, Any, Batch], tuple[jax.Array, Metrics]]


def cached_loss(embed: Embed, compare: Compare, *, chunks: int = 1) -> LossFn:
    """A loss function for `make_train_step` that holds the activations of one chunk at a time.

    The forward pass keeps nothing of a chunk but its embeddings. The backward pass takes the loss's gradient by the
    embeddings first, then runs each chunk again, with the same dropout keys and the same statistics as before, and adds
    up the gradients by the parameters. Towers run forward twice; the result is that of all chunks in memory at once.

    Chunk c of n is rows c, c + n, c + 2n, ...: so every device keeps its own rows where the batch is split over them.
    Its key is `fold_in(key, c)`; one chunk is the plain step with the key as it came. Statistics that the towers
    gather (batch normalisation) go from chunk to chunk.

    Args:
        embed: (model, rows of the batch, key) to embeddings: a tree of arrays with one row an example.
        compare: (model, embeddings of the whole batch, batch) to (loss, metrics); must not change the model.
        chunks: into how many parts the rows go.

    Returns:
        A loss function; it raises ValueError where the rows do not divide by `chunks`.

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

    @jax.checkpoint  # its inputs are kept, which are small or there anyway, and its activations are not
    def chunk(params: Any, rest: Any, rows: Batch, number: jax.Array) -> tuple[Any, Any]:
        part = nnx.merge(graphdef, params, rest)
        embeddings = embed(part, rows, None if key is None else jax.random.fold_in(key, number))
        return split_model(part)[2], embeddings

    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, chunks, *leaf.shape[1:]).swapaxes(0, 1), batch)  # (n, B / n, ...)
    numbers = jax.numpy.arange(chunks)
    rest, embeddings = jax.lax.scan(lambda rest, x: chunk(params, rest, *x), rest, (rows, numbers))
    nnx.update(model, rest)
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:]), embeddings)
