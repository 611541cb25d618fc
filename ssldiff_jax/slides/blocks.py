"""Blocks of an array that were read last, so that neighbouring regions decode each once."""

import collections
from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped

_KEPT_BYTES = 2**26

FetchFn = Callable[[slice, slice], Shaped[np.ndarray, "C H W"]]
"""Values of some rows and columns."""


class Blocks:
    """The blocks of one level: the chunks it is stored in."""

    def __init__(self, shape: tuple[int, int], block: tuple[int, int]):
        self._shape, self._block = shape, block
        self._kept: collections.OrderedDict[tuple[int, int], np.ndarray] = collections.OrderedDict()
        self._bytes = 0

    def read(
        self, top: int, left: int, height: int, width: int, fetch: FetchFn
    ) -> Shaped[np.ndarray, "C H W"]:
        """Values of a region inside the level; what is not kept is fetched in one piece."""
        (y0, y1), (x0, x1) = (
            (first // size, -(-(first + count) // size))
            for first, count, size in zip((top, left), (height, width), self._block, strict=True)
        )
        wanted = [(i, j) for i in range(y0, y1) for j in range(x0, x1)]
        there = {key: self._kept[key] for key in wanted if key in self._kept}
        there |= self._fetched([key for key in wanted if key not in there], fetch)
        first = there[wanted[0]]
        out = np.empty((len(first), height, width), first.dtype)
        for (i, j), values in there.items():
            row, column = i * self._block[0] - top, j * self._block[1] - left
            y, x = max(row, 0), max(column, 0)
            part = values[:, y - row : height - row, x - column : width - column]
            out[:, y : y + part.shape[1], x : x + part.shape[2]] = part
        self._keep(there)
        return out

    def forget(self) -> None:
        """Let go of what is kept."""
        self._kept.clear()
        self._bytes = 0

    def _fetched(
        self, missing: list[tuple[int, int]], fetch: FetchFn
    ) -> dict[tuple[int, int], np.ndarray]:
        """Blocks by a single read of what encloses them all: chunks come together then."""
        if not missing:
            return {}
        (rows, columns), (h, w) = zip(*missing, strict=True), self._block
        top, left = min(rows) * h, min(columns) * w
        bottom = min((max(rows) + 1) * h, self._shape[0])
        right = min((max(columns) + 1) * w, self._shape[1])
        values = fetch(slice(top, bottom), slice(left, right))
        # Copies: a view would keep all of it in memory.
        return {
            (i, j): values[:, i * h - top : (i + 1) * h - top, j * w - left : (j + 1) * w - left]
            .copy()
            for i, j in missing
        }  # fmt: skip

    def _keep(self, blocks: dict[tuple[int, int], np.ndarray]) -> None:
        """The latest, as many as there is room for."""
        for key, values in blocks.items():
            if key in self._kept:
                self._kept.move_to_end(key)
            elif values.nbytes <= _KEPT_BYTES:
                self._kept[key] = values
                self._bytes += values.nbytes
        while self._bytes > _KEPT_BYTES:
            _, values = self._kept.popitem(last=False)
            self._bytes -= values.nbytes
