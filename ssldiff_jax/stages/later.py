"""Functions of the stages, by name: imported when they are called."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Later:
    """A function of a module of this package, which is imported when the function is called: every
    command reads the table, and a machine may lack what another stage needs."""

    module: str
    name: str

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself."""
        return getattr(importlib.import_module(f"{__package__}.{self.module}"), self.name)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)
