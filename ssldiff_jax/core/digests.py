"""Short hashes: equal settings or weights, equal hash."""

import dataclasses
import hashlib
import json
from typing import Any

import jax
import numpy as np


def of_values(*parts: Any) -> str:
    """A 12-digit hash of anything JSON or dataclasses can say; equal settings, equal hash."""
    plain = [dataclasses.asdict(p) if dataclasses.is_dataclass(p) else p for p in parts]
    text = json.dumps(plain, sort_keys=True, default=str)
    # 48 bits: of ten thousand settings two are alike with probability 2e-7 (birthday bound).
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def of_params(params: Any) -> str:
    """A 12-digit hash of weights, by name and value."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        # By the values in C order: how a file or a device lays them out is no part of them.
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:12]
