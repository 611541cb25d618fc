"""Scaled dot-product attention, in the form each backend runs best."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from ssldiff_jax.core import arrays, platform

_MANY = 2**20  # weights of a head, from which on a CPU's caches hold only those of a block
_BLOCK = 512  # queries of a block: a quarter of them or half are as fast, all take twice as long
_LEAST = 64  # of fewer queries a block's products are too small


def attend(
    q: Float[arrays.AnyArray, "B L D"],
    k: Float[arrays.AnyArray, "B M D"],
    v: Float[arrays.AnyArray, "B M D"],
    num_heads: int,
    mask: Bool[arrays.AnyArray, "B M"] | None = None,
) -> Float[arrays.AnyArray, "B L D"]:
    """Softmax(q·kᵀ / √(D / num_heads))·v for each head, heads side by side in D; over the keys
    that are `mask`, of which there must be one."""
    # (B, 1, 1, M): one set of keys for all heads and queries.
    mask = None if mask is None else mask[:, None, None]
    # XLA's form on accelerators too: cuDNN's takes at most 256 channels a head (jax 0.11.2 on
    # Hopper), and the published UNet has one head of 384, 576 and 960.
    if platform.target() != "cpu":
        heads = (split_heads(x, num_heads) for x in (q, k, v))
        return jax.nn.dot_product_attention(*heads, mask=mask).reshape(q.shape)
    # (B, H, L, D) einsums are 3-4 times faster than dot_product_attention on CPU.
    qh, kh, vh = (split_heads(x, num_heads).swapaxes(1, 2) for x in (q, k, v))
    block = math.gcd(q.shape[1], _BLOCK)
    if mask is None and q.shape[1] * k.shape[1] >= _MANY and block >= _LEAST:
        return _in_blocks(qh, kh, vh, block).swapaxes(1, 2).reshape(q.shape)
    logits = jnp.einsum("bhld,bhmd->bhlm", qh, kh) * qh.shape[-1] ** -0.5
    # Softmax sums thousands of exponentials: bfloat16 would keep 8 bits of the sum.
    logits = logits.astype(jnp.float32)
    if mask is not None:
        # Exactly 0 after softmax; with all keys masked it would be 0/0, hence one must be there.
        logits = jnp.where(mask, logits, -jnp.inf)
    weights = jax.nn.softmax(logits).astype(vh.dtype)
    return jnp.einsum("bhlm,bhmd->bhld", weights, vh).swapaxes(1, 2).reshape(q.shape)


def _in_blocks(
    q: Float[arrays.AnyArray, "B H L d"],
    k: Float[arrays.AnyArray, "B H M d"],
    v: Float[arrays.AnyArray, "B H M d"],
    block: int,
) -> Float[arrays.AnyArray, "B H L d"]:
    """One head after the other, `block` queries at a time, which divide L: what lies between the
    two products stays in the caches."""

    def head(of: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        queries, keys, values = of

        def attended(q: jax.Array) -> jax.Array:
            logits = (q @ keys.T).astype(jnp.float32)
            weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
            total = weights.sum(axis=-1, keepdims=True)
            return (weights.astype(values.dtype) @ values / total).astype(values.dtype)

        return jax.lax.map(attended, queries)

    blocks = (q * q.shape[-1] ** -0.5).reshape(-1, q.shape[2] // block, block, q.shape[3])
    k, v = (x.reshape(-1, *x.shape[2:]) for x in (k, v))
    return jax.lax.map(head, (blocks, k, v)).reshape(q.shape)


def split_heads(
    x: Float[arrays.AnyArray, "B L D"], num_heads: int
) -> Float[arrays.AnyArray, "B L H d"]:
    """The channels of each head, which lie side by side in D."""
    return x.reshape(*x.shape[:2], num_heads, -1)
