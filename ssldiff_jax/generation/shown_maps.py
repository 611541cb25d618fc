"""Maps that a ControlNet is shown, which travel behind the conditions of windows."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import arrays


@dataclasses.dataclass(frozen=True)
class ShownMaps:
    """Conditions of `condition_dim` numbers, and behind them, where a denoiser is shown maps, the
    latents of a window, `side` × `side` × `channels`; `channels` 0 has none."""

    condition_dim: int
    side: int
    channels: int

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
        if not self.channels:
            return jnp.zeros_like(condition)
        return jnp.asarray(condition).at[:, : self.condition_dim].set(0)
