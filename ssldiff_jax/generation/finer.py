"""From one embedding a cell, as a prior samples them, to the tokens that a finer denoiser takes."""

from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.generation import token_sampler
from ssldiff_jax.runs.workdir import folders


def is_coarse(shape: tuple[int, ...], sizes: conditioning.DenoiserConfig) -> bool:
    """Whether a grid of this shape has one embedding a cell for a denoiser that takes tokens."""
    is_grid = len(shape) == 3 and shape[-1] == sizes.embedding_dim
    return sizes.tokens_per_side > 1 and is_grid


def require(
    finer: token_sampler.TokenSampler | None, sizes: conditioning.DenoiserConfig
) -> token_sampler.TokenSampler:
    """What samples tokens.

    Raises WorkdirError where there is nothing that does, and where it samples another number.
    """
    k = sizes.tokens_per_side
    if finer is None:
        raise folders.WorkdirError(
            f"cells must have the denoiser's {k} × {k} tokens ({sizes.cell_dim} numbers), got one "
            f"embedding each ({sizes.embedding_dim}) and nothing that samples tokens; run "
            "--config.stages=tokens"
        )
    if (finer.per_side, finer.white.dim) != (k, sizes.embedding_dim):
        raise folders.WorkdirError(
            f"what samples tokens must give the denoiser's {k} × {k} of {sizes.embedding_dim}, got "
            f"{finer.per_side} × {finer.per_side} of {finer.white.dim}; run "
            "--config.stages=tokens --config.force=tokens"
        )
    return finer
