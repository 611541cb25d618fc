"""Embeddings of squares of an image with what is known of each, as AnnData (`.h5ad`), which scanpy,
squidpy and SpatialData read."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Num

from ssldiff_jax.formats import atomic
from ssldiff_jax.slides import optional

FORMAT = "h5ad"


@dataclasses.dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """Embeddings of squares, and where these lie.

    Attributes:
        embeddings: `X`.
        names: of the squares, each once.
        arrays: `obsm`: "spatial" has centres (x, y) in px of level 0, as squidpy has them.
        columns: `obs`: a number, or a text, of each square; "" where no text is known.
        about: `uns`: what holds for all.
    """

    embeddings: Float[np.ndarray, "N D"]
    names: Sequence[str]
    arrays: Mapping[str, Float[np.ndarray, "N K"]]
    columns: Mapping[str, Num[np.ndarray, "N"] | Sequence[str]]
    about: Mapping[str, Any]

    def write(self, path: pathlib.Path) -> None:
        """Write the file; it appears whole or not at all.

        Raises ValueError where anndata is not installed, OSError where it cannot be written.
        """
        optional.require([FORMAT])
        # Not at the top: need not be installed.
        import anndata
        import pandas as pd

        columns = {name: _column(values) for name, values in self.columns.items()}
        table = anndata.AnnData(
            self.embeddings,
            # Of objects: later releases of pandas have a type of text that files may not hold.
            obs=pd.DataFrame(columns, index=pd.Index(list(self.names), dtype=object)),
            obsm=dict(self.arrays),
            uns=dict(self.about),
        )
        atomic.write_atomic(path, table.write_h5ad)


def _column(values: Num[np.ndarray, "N"] | Sequence[str]) -> Any:
    import pandas as pd

    if isinstance(values, np.ndarray):
        return values
    known = sorted({text for text in values if text})
    return pd.Categorical([text or None for text in values], pd.Index(known, dtype=object))
