"""The second level of the prior: the k × k tokens of a cell, given its one embedding.

The same transformer, over the tokens of one window of a cell's size. Larger grids are sampled as
images are, by windows on the canvas of all tokens, each conditioned on the embedding of what lies
there.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ssldiff_jax.core import arrays, tasks
from ssldiff_jax.diffusion import cells
from ssldiff_jax.prior import conditions, loss, whitening


@dataclasses.dataclass(frozen=True, eq=False)
class WhiteTokens:
    """What makes tokens white, and the embeddings that they are given: their spreads differ, and
    those of a class token lie elsewhere."""

    tokens: whitening.Whitening
    whole: whitening.Whitening

    @property
    def dim(self) -> int:
        """Length of a token, and of an embedding."""
        return len(self.tokens.mean)

    @classmethod
    def load(cls, folder: pathlib.Path) -> "WhiteTokens":
        """Read what `save` wrote."""
        paths = (folder / f"whitening_{name}.npz" for name in ("tokens", "whole"))
        return cls(*map(whitening.Whitening.load, paths))

    def save(self, folder: pathlib.Path) -> None:
        """Write two .npz."""
        self.tokens.save(folder / "whitening_tokens.npz")
        self.whole.save(folder / "whitening_whole.npz")

    def condition(self, whole: Float[np.ndarray, "N D"], per_side: int) -> Float[np.ndarray, "N E"]:
        """The network's condition for the tokens of squares of these embeddings."""
        count = len(whole)
        place = conditions.GridPosition.of_cells(np.zeros((count, 2)), (per_side, per_side))
        white = self.whole.apply(whole).astype(np.float32)
        return spec(self.dim).pack(count, embedding=white, place=place)


def spec(dim: int) -> conditions.ConditionSpec:
    """All that the second level is conditioned on: an embedding, and that a window is all of what
    it describes."""
    return conditions.ConditionSpec(embedding_dim=dim)


@dataclasses.dataclass(frozen=True)
class TokensTask(tasks.Task):
    """Learn p(tokens | embedding) from batches of what the step `embeddings` stores: packed
    `embedding` and `whole`, of one crop or of several cells around it, of which one is learnt."""

    prior: loss.PriorTask
    num_cells: int
    # None where only shapes are looked at.
    white: WhiteTokens | None

    def batch_spec(self) -> tasks.BatchSpec:
        """Tokens and embeddings as they are stored, and their place in the stream."""
        k, _, dim = self.prior.grid_shape
        length = self.num_cells * k * k * dim
        if self.num_cells > 1:
            length += 2 * self.num_cells  # where each cell lies
        return {
            "embedding": jax.ShapeDtypeStruct((1, length), jnp.float16),
            "whole": jax.ShapeDtypeStruct((1, self.num_cells * dim), jnp.float32),
            "index": jax.ShapeDtypeStruct((1,), jnp.int32),
        }

    def init(self, key: arrays.Key, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """Parameters; no gradient reaches what makes tokens white."""
        dim = self.prior.grid_shape[-1]
        extra = {"tokens": _affine(None, dim), "whole": _affine(None, dim)}
        if self.white is not None:
            extra = {name: _affine(getattr(self.white, name), dim) for name in extra}
        # Of no effect on first values: shapes are enough.
        like = tasks.batch_of(self.prior.batch_spec(), len(batch["index"]))
        params, _ = self.prior.init(key, tasks.shapes_as_zeros(like))
        return params, extra

    def loss(
        self, params: Any, batch: Mapping[str, Any], key: arrays.Key, *, ema_params: Any, extra: Any
    ) -> tasks.LossOutput:
        """That of the prior, of the tokens of one cell an example."""
        white = self._white(batch, extra)
        output = self.prior.loss(params, white, key, ema_params=ema_params, extra={})
        return output._replace(extra=extra)

    def _white(self, batch: Mapping[str, Any], extra: Any) -> dict[str, jax.Array]:
        """A batch as the prior takes it."""
        (k, _, dim), index = self.prior.grid_shape, batch["index"]
        tokens, count = jnp.asarray(batch["embedding"], jnp.float32), len(index)
        if self.num_cells > 1:
            tokens, _ = cells.unpack(tokens, self.num_cells)
        grid = self._one_cell(tokens, index).reshape(count, k, k, dim)
        grid = _apply(extra["tokens"], grid)
        whole = _apply(extra["whole"], self._one_cell(batch["whole"], index))
        place = conditions.GridPosition.of_cells(np.zeros((1, 2)), (k, k))
        place = jnp.broadcast_to(jnp.asarray(place), (count, 4))
        # As `ConditionSpec.pack` has it, which works on the host.
        condition = jnp.concatenate([place, jnp.ones((count, 1)), whole], axis=1)
        return {"grid": grid, "condition": condition, "index": index}

    def _one_cell(
        self, values: Float[arrays.AnyArray, "B ..."], index: Int[arrays.AnyArray, "B"]
    ) -> Float[jax.Array, "B n"]:
        """Values of one cell of each example, by its place in the stream: when it comes again, of
        any of them."""
        of_cells = jnp.asarray(values).reshape(len(index), self.num_cells, -1)
        return of_cells[jnp.arange(len(index)), index % self.num_cells]


def _affine(white: whitening.Whitening | None, dim: int) -> dict[str, jax.Array]:
    if white is None:
        return {"mean": jnp.zeros(dim), "matrix": jnp.zeros((dim, dim))}
    return {"mean": jnp.asarray(white.mean), "matrix": jnp.asarray(white.matrix)}


def _apply(
    affine: Mapping[str, jax.Array], z: Float[arrays.AnyArray, "*B D"]
) -> Float[jax.Array, "*B D"]:
    """Exact to float32 on every device: small directions are stretched a hundred times."""
    centred = (z - affine["mean"]).astype(jnp.float32)
    matrix = affine["matrix"].astype(jnp.float32)
    return jnp.matmul(centred, matrix, precision=jax.lax.Precision.HIGHEST)
