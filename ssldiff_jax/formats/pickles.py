"""Pickles read without running them.

A pickle's instructions may name any function of any module. None is ever imported: the few names
that a reader knows are rebuilt by the reader, every other becomes an object without behaviour.
"""

import io
import pickle
import pickletools
from typing import Any

# Never written by torch.save or numpy.save; the first three reach for a registry, the last
# allocate at will.
_REFUSED = {"EXT1", "EXT2", "EXT4", "INST", "OBJ", "BYTEARRAY8", "NEXT_BUFFER"}


class Inert:
    """What an unknown name becomes: takes any arguments, state and items, and keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> "Inert":
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Forget an item."""

    def extend(self, items: Any) -> None:
        """Forget items."""

    def add(self, item: Any) -> None:
        """Forget an item."""


class Unpickler(pickle._Unpickler):
    """The pure Python unpickler: its memo is a dictionary, so no index in a file can exhaust
    memory, and every name it resolves comes through `find_class`.

    Raises ValueError for instructions that no file of weights or names needs.
    """

    def __init__(self, data: bytes):
        # All instructions are looked at before any is followed.
        refused = {opcode.name for opcode, _, _ in pickletools.genops(data)} & _REFUSED
        if refused:
            raise ValueError(f"the pickle uses {', '.join(sorted(refused))}")
        # As torch.load reads the strings of Python 2's pickles.
        super().__init__(io.BytesIO(data), encoding="utf-8")

    def find_class(self, module: str, name: str) -> Any:
        """What a name of the file stands for; readers that know some override this."""
        return type("Inert", (Inert,), {"name": f"{module}.{name}"})
