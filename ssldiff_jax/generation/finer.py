"""From one embedding a cell, as a prior samples them, to the tokens that a finer denoiser takes."""

from typing import Protocol

import numpy as np
from jaxtyping import Float

from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.runs.workdir import folders


class FinerGrid(Protocol):
    """Samples the tokens of cells of which one embedding each is known."""

    def __call__(
        self, grid: Float[np.ndarray, "rows cols D"], seed: int
    ) -> Float[np.ndarray, "rows cols E"]:
        """(rows, columns, D) → (rows, columns, k²·D), the tokens of each cell row by row."""


def is_coarse(shape: tuple[int, ...], sizes: conditioning.DenoiserConfig) -> bool:
    """Whether a grid of this shape has one embedding a cell for a denoiser that takes tokens."""
    return sizes.tokens_per_side > 1 and shape[-1:] == (sizes.embedding_dim,)


def require(finer: FinerGrid | None, sizes: conditioning.DenoiserConfig) -> FinerGrid:
    """What samples tokens.

    Raises WorkdirError where there is nothing that does.
    """
    if finer is None:
        k = sizes.tokens_per_side
        raise folders.WorkdirError(
            f"cells must have the denoiser's {k} × {k} tokens ({sizes.cell_dim} numbers), got one "
            f"embedding each ({sizes.embedding_dim}), as a prior samples them: that needs a "
            "denoiser of config.embeddings.tokens_per_side=1"
        )
    return finer
