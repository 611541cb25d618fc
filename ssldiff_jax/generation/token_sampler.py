"""The trained second level of the prior: from one embedding a cell to the tokens of every cell."""

import dataclasses
import functools
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from ssldiff_jax.core import rng
from ssldiff_jax.data import store
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import grid_network
from ssldiff_jax.prior import tokens as tokens_lib
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs.config import prior as prior_config
from ssldiff_jax.sampler import conditions, sampler
from ssldiff_jax.sampler import grid as grid_lib

Border = Literal["margin", "wrap"]


@dataclasses.dataclass(frozen=True, eq=False)
class TokenSampler:
    """Samples tokens.

    Attributes:
        section: its config.
        per_side: tokens on the side of a cell.
        encoder: digest of what gave the tokens that it learnt.
        white: between tokens, or embeddings, and what it learnt.
        params: averaged weights.
    """

    section: prior_config.TokensSection
    per_side: int
    encoder: str
    white: tokens_lib.WhiteTokens
    params: Any

    @classmethod
    def of_run(cls, artifacts: artifacts_lib.Artifacts) -> "TokenSampler":
        """That of a work directory."""
        # Not at the top: a machine that only computes need not have Orbax.
        from ssldiff_jax.train import checkpoint

        folder = artifacts.folders.of_stage("tokens")
        facts = atomic.read_json(folder / "tokens.json")
        return cls(
            artifacts.config.tokens,
            facts["tokens_per_side"],
            facts["encoder"],
            tokens_lib.WhiteTokens.load(folder),
            checkpoint.load_params(artifacts.folders.checkpoints("tokens")),
        )

    def sample_part(
        self, embedding: Float[np.ndarray, "N D"], number: int, *, seed: int = 0
    ) -> Float[np.ndarray, "n k k D"]:
        """Tokens of squares alone, from the embedding of each: of one batch of them, of which there
        are grid_network.num_batches(N)."""
        first, batch = grid_network.batch_of(embedding, number)
        condition = self.white.condition(batch, self.per_side)
        key = rng.stream(seed, "tokens/cells", first)
        spec = tokens_lib.spec(self.white.dim)
        return self.white.tokens.undo(self._network.grids(spec, self.per_side, condition, key))

    def sample(
        self,
        grid: Float[np.ndarray, "rows cols D"],
        *,
        seed: int = 0,
        border: Border = "margin",
        known: Float[np.ndarray, "rows cols E"] | None = None,
        keep_mask: Bool[np.ndarray, "rows cols"] | None = None,
    ) -> Float[np.ndarray, "rows cols E"]:
        """The tokens of all cells, packed row by row of each: (rows, columns, k²·D). Windows of a
        cell's size cover the canvas of all tokens as those of images do, each conditioned on the
        cell that it stands on, or, where windows move, on what lies between cells.

        Args:
            border: what lies beyond the grid: its outer cells again, or its other side.
            known: packed tokens, of which those of cells marked in `keep_mask` stay.
        """
        k, (rows, cols) = self.per_side, grid.shape[:2]
        canvas = (rows * k, cols * k)
        grid_sampler = self._network.canvas_sampler(tokens_lib.spec(self.white.dim))
        plan = grid_network.plan(
            canvas,
            k,
            len(grid_sampler.table.t),
            seed,
            max_offset=self.section.max_offset,
            border=border,
        )
        lattice = conditions.Lattice(np.asarray(grid, np.float32), canvas, k, border)

        def condition(corners: np.ndarray) -> np.ndarray:
            return self.white.condition(lattice.interpolated(corners), k)

        init = None
        if known is not None:
            stay = np.repeat(np.repeat(keep_mask, k, axis=0), k, axis=1).astype(np.float32)
            white = self.white.tokens.apply(grid_lib.unpacked(known, k)).astype(np.float32)
            init = sampler.InitLatents(white * stay[..., None], stay)
        key = rng.stream(seed, "tokens/canvas")
        white = np.asarray(grid_sampler(self.params, plan, condition, key, init))
        return grid_lib.packed(self.white.tokens.undo(white), k)

    @functools.cached_property
    def _network(self) -> grid_network.GridNetwork:
        section = self.section
        steps = grid_network.Steps(section.process, section.solver, section.guidance)
        return grid_network.GridNetwork(section.network, steps, self.params, self.white.dim)


def require_whole(stored: store.Store, per_side: int) -> None:
    """Raises ValueError where a store of the step `embeddings` has not the tokens, and the
    embeddings beside them, that the second level learns from."""
    has = {field.name for field in stored.fields}
    side = stored.facts.get("tokens_per_side", 1)
    if "whole" not in has or side != per_side:
        raise ValueError(
            f"embeddings must hold {per_side} × {per_side} tokens of each patch and its embedding "
            f"(whole), got {side} × {side} and {', '.join(sorted(has))}; "
            "--config.force=embeddings makes them again"
        )
