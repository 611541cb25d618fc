"""Addresses, such as those of buckets, where only the path of a folder will do."""

import os
import re
from collections.abc import Mapping

from ssldiff_jax.core import schema

# pathlib makes one slash of two; a drive has one letter.
_ADDRESS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/+")


def require_folders(named: Mapping[str, str | os.PathLike[str]]) -> None:
    """Raises ConfigError for the first value that is an address, by its name; "" is none.

    In a bucket nothing can be mapped into memory, locked or renamed, as work directories are; read
    as a path, an address would be a folder of this machine.
    """
    for name, value in named.items():
        if match := _ADDRESS.match(text := os.fspath(value)):
            address = f"{match[1]}://{text[match.end() :]}"
            raise schema.ConfigError(
                f"{name} must be the path of a folder that all hosts share, such as a bucket "
                f"mounted by gcsfuse, got {address}; only checkpoints of trainings may lie in a "
                "bucket: --config.runtime.checkpoints=gs://bucket/run"
            )
