"""Maps that a ControlNet is shown, which travel behind the conditions of windows."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import arrays
from ssldiff_jax.diffusion import conditioning


@dataclasses.dataclass(frozen=True)
class ShownMaps:
    """Conditions of `condition_dim` numbers, and behind them, where a denoiser is shown maps, the
    latents of a window, `side` × `side` × `channels`; `channels` 0 has none. `null_of` makes
    unconditional conditions of others."""

    condition_dim: int
    side: int
    channels: int
    null_of: conditioning.NullFn = jnp.zeros_like

    @property
    def dim(self) -> int:
        """Numbers of both together."""
        return self.condition_dim + self.side**2 * self.channels

    def parted(
        self, condition: Float[arrays.AnyArray, "B E"]
    ) -> tuple[Float[arrays.AnyArray, "B D"], arrays.Latents | None]:
        """Conditions and maps.

        Raises ValueError where there should be maps and are none.
        """
        if not self.channels:
            return condition, None
        if condition.shape[1] != self.dim:
            raise ValueError(
                "a denoiser with a ControlNet must be shown a map (config.generate.control), got "
                f"conditions of {condition.shape[1]} numbers without one"
            )
        maps = condition[:, self.condition_dim :]
        shape = (len(condition), self.side, self.side, self.channels)
        return condition[:, : self.condition_dim], maps.reshape(shape)

    def null(self, condition: Float[arrays.AnyArray, "B E"]) -> Float[jax.Array, "B E"]:
        """Unconditional conditions; maps stay, so that guidance leads to the embedding alone."""
        parts = jnp.split(jnp.asarray(condition), [self.condition_dim], axis=1)
        return jnp.concatenate([self.null_of(parts[0]), parts[1]], axis=1)
