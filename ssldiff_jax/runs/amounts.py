"""Amounts that are no keys of the config, which a step and what counts it beforehand share."""

LARGEST_PATCH_PX = 1024
"""Images of a data set that are larger are slides of their own."""

GRIDS_OF_SHARD = 1024
"""Fewer than examples of other stores, as a grid has many embeddings."""

PRIOR_COMPARED = 512
"""Held-out grids that figures of a prior are taken of, at most."""

IMAGINED_SHOWN = 4
"""Images of the prior that are kept; as many are generated at least."""

VARIATIONS_EACH = 4
"""Samples of each real patch on the page of variations."""
