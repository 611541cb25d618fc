"""The field that windows are cut from: how it is stored, split over devices, noised and joined.

The field is a torus of whole windows. It is stored with one more row and column of blocks, ghosts
of the first, so that a window which crosses the far edge is one slice. Split over D devices, each
holds L rows of the storage and the first `window` rows of the next device, its halo.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Float, Num

from ssldiff_jax.core import arrays, data_parallel, rng
from ssldiff_jax.sampler import windows

Stored: TypeAlias = Float[jax.Array, "H W C"]
Rows: TypeAlias = Num[jax.Array, "_ _ _"]
"""Some rows of stored arrays, or those of a coarser layout."""
AXIS = "data"


@dataclasses.dataclass(frozen=True)
class CanvasConfig:
    """How the arrays of a canvas are held.

    Attributes:
        channels: of the latents.
        dtype: of what is kept between steps; windows are denoised in float32 whatever it is.
        mesh: the devices, None for one.
        split: what is spread over the mesh's data axis: the windows of a chunk, every device
            holding the whole canvas; or the rows of the canvas.
    """

    channels: int
    dtype: Literal["float32", "bfloat16"] = "float32"
    mesh: Mesh | None = None
    split: Literal["windows", "rows"] = "windows"

    @property
    def devices(self) -> int:
        """Devices on the data axis."""
        return self.mesh.shape[AXIS] if self.mesh else 1

    @property
    def shards(self) -> int:
        """Parts that the rows of a canvas are split into."""
        return self.devices if self.split == "rows" else 1

    @property
    def whole(self) -> Sharding:
        """Of what every device holds whole."""
        return self._sharding(PartitionSpec())

    @property
    def in_parts(self) -> Sharding:
        """Of what is split along its first axis: the windows of a chunk, or rows."""
        return self._sharding(PartitionSpec(AXIS))

    def _sharding(self, spec: PartitionSpec) -> Sharding:
        # Committed to the one device too, as restored weights are: a jit compiles anew for each
        # combination of arguments that are and are not.
        return NamedSharding(self.mesh, spec) if self.mesh else data_parallel.one_device()


@dataclasses.dataclass(frozen=True)
class Layout:
    """The storage of a field of `rows` × `cols` blocks of `window` latent pixels."""

    rows: int
    cols: int
    window: int
    config: CanvasConfig

    @property
    def shard_blocks(self) -> int:
        """Rows of blocks on a device, ghosts among them, its halo not."""
        return -(-(self.rows + 1) // self.config.shards)

    @property
    def shard_rows(self) -> int:
        """L: rows of the storage that a device owns."""
        return self.shard_blocks * self.window

    @property
    def halo(self) -> int:
        """Rows of the next device that a device sees."""
        return self.window if self.config.shards > 1 else 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a stored array, all devices together."""
        height = self.config.shards * (self.shard_rows + self.halo)
        return height, (self.cols + 1) * self.window, self.config.channels

    @property
    def num_bytes(self) -> int:
        """Of one stored array, all devices together."""
        return int(np.prod(self.shape)) * jnp.dtype(self.config.dtype).itemsize

    def stored_rows(self, rows: np.ndarray) -> np.ndarray:
        """Where rows of the field are in the storage."""
        return rows + rows // self.shard_rows * self.halo

    def coarser(self, side: int) -> "Layout":
        """The storage of a field of one value for every square of `side` latent pixels."""
        return dataclasses.replace(self, window=self.window // side)

    def store(self, canvas: Num[arrays.AnyArray, "H W C"], dtype: str | None = None) -> np.ndarray:
        """A canvas as it is stored, by default in the canvas's dtype: mirrored beyond its border;
        no ghosts, no halos."""
        canvas, field = np.asarray(canvas), (self.rows * self.window, self.cols * self.window)
        rows, cols = (_shown(*sizes) for sizes in zip(canvas.shape, field, strict=False))
        stored = np.zeros((*self.shape[:2], canvas.shape[-1]), dtype or np.float32)
        stored[self.stored_rows(np.arange(field[0])), : field[1]] = canvas[rows][:, cols]
        return stored.astype(dtype or self.config.dtype)

    def noise(self, key: arrays.Key, step, row) -> Float[jax.Array, "w W C"]:
        """Noise of a row of blocks at a step: each block's own, by its place in the field."""
        shape = (self.window, self.window, self.config.channels)
        place = jnp.arange(self.cols + 1) % self.cols
        keys = jax.vmap(lambda col: rng.at_place(key, step, row % self.rows, col))(place)
        blocks = jax.vmap(lambda k: jax.random.normal(k, shape))(keys)
        return jnp.moveaxis(blocks, 0, 1).reshape(self.window, -1, shape[-1])

    def exchange_halo(self, x: Stored) -> Stored:
        """Bring ghosts and halos of an array up to date."""
        w, edge = self.window, self.cols * self.window
        x = x.at[:, edge:].set(x[:, :w])
        owner, at = self._ghost()
        first = self._sum(jnp.where(self._shard() == 0, x[:w], 0))
        x = x.at[at : at + w].set(jnp.where(self._shard() == owner, first, x[at : at + w]))
        if not self.halo:
            return x
        back = [(i + 1, i) for i in range(self.config.shards - 1)]
        return x.at[self.shard_rows :].set(jax.lax.ppermute(x[:w], AXIS, back))

    def reduce_halo(self, total: Stored) -> Stored:
        """Add what windows left in ghosts and halos to the pixels that those stand for."""
        w, edge = self.window, self.cols * self.window
        if self.halo:
            ahead = [(i, i + 1) for i in range(self.config.shards - 1)]
            total = total.at[:w].add(jax.lax.ppermute(total[self.shard_rows :], AXIS, ahead))
        owner, at = self._ghost()
        ghost = self._sum(jnp.where(self._shard() == owner, total[at : at + w], 0))
        total = total.at[:w].add(jnp.where(self._shard() == 0, ghost, 0))
        return total.at[:, :w].add(total[:, edge:])

    def map_row_blocks(self, step: Callable, changed: tuple, read: tuple = ()) -> tuple:
        """Replace arrays one row of blocks after the other, so that nothing but one row is held
        twice: `step` takes the row's number in the field, and in float32 its slices of what is
        changed and of what is only read; it returns new blocks of the former. Arrays of a coarser
        layout are cut at the same places."""
        num_blocks = self.shard_blocks + bool(self.halo)

        def cut(whole, i):
            size = lambda a: (len(a) // num_blocks, *a.shape[1:])
            at = lambda a: (i * (len(a) // num_blocks), 0, 0)
            return tuple(
                jax.lax.dynamic_slice(a, at(a), size(a)).astype(jnp.float32) for a in whole
            )

        # The next row is read once this one is written: a row that is read and written in one
        # iteration makes the compiler copy whole arrays.
        def one(i, carry):
            whole, rows = carry
            new = step(self._shard() * self.shard_blocks + i, rows, cut(read, i))
            put = lambda a, f: jax.lax.dynamic_update_slice(
                a, f.astype(a.dtype), (i * len(f), 0, 0)
            )
            whole = tuple(map(put, whole, new))
            return whole, cut(whole, i + 1)

        return jax.lax.fori_loop(0, self.shard_blocks, one, (changed, cut(changed, 0)))[0]

    def before(self, x: Rows, count: int) -> Rows:
        """The rows of the field that lead to the first of every device, at most a window of them;
        the field goes round."""
        owner, at = divmod((self.rows - 1) * self.window, self.shard_rows)
        end = at + self.window
        last = self._sum(jnp.where(self._shard() == owner, x[end - count : end], 0))
        if not self.halo:
            return last
        ahead = [(i, i + 1) for i in range(self.config.shards - 1)]
        rows = jax.lax.ppermute(x[self.shard_rows - count : self.shard_rows], AXIS, ahead)
        return jnp.where(self._shard() == 0, last, rows)

    def rows_around(self, x: Rows, before: Rows, number: jax.Array) -> Rows:
        """A row of blocks, by its number in the field, with as many rows above it and below as
        there are `before` the first; ghosts and halos must be up to date."""
        count, first = len(before), (number - self._shard() * self.shard_blocks) * self.window
        cut = lambda top, height: jax.lax.dynamic_slice(x, (top, 0, 0), (height, *x.shape[1:]))
        above = jnp.where(first == 0, before, cut(jnp.maximum(first - count, 0), count))
        return jnp.concatenate([above, cut(first, self.window + count)])

    def gather(self, own: Rows) -> Rows:
        """All rows of the storage, without halos, on every device."""
        own = own[: len(own) * self.shard_rows // (self.shard_rows + self.halo)]
        return jax.lax.all_gather(own, AXIS, tiled=True) if self.halo else own

    def _shard(self) -> jax.Array | int:
        return jax.lax.axis_index(AXIS) if self.halo else 0

    def _sum(self, x: jax.Array) -> jax.Array:
        return jax.lax.psum(x, AXIS) if self.halo else x

    def _ghost(self) -> tuple[int, int]:
        """The device that has the row of ghosts, and where."""
        return divmod(self.rows * self.window, self.shard_rows)

    def over_shards(self, program: Callable, split_args: tuple[bool, ...]) -> Callable:
        """`program` on every device's rows: arguments marked True are split by rows; so is what
        it returns."""
        if not self.halo:
            return program
        spec = lambda split: PartitionSpec(AXIS) if split else PartitionSpec()
        return jax.shard_map(
            program,
            mesh=self.config.mesh,
            in_specs=tuple(spec(s) for s in split_args),
            out_specs=PartitionSpec(AXIS),
            check_vma=False,
        )

    @property
    def sharding(self) -> Sharding:
        """Of stored arrays."""
        return self.config.in_parts if self.halo else self.config.whole


def _shown(size: int, field: int) -> np.ndarray:
    """Which of a canvas's `size` pixels each of a line of `field` shows, which goes round: half of
    what is beyond follows the canvas's end, half leads to its beginning."""
    at = np.arange(field)
    at = np.where(at >= size + (field - size + 1) // 2, at - field, at)
    return windows.mirrored(at, size)
