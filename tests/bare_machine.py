"""A machine that has only what models are computed with: processes to which all other packages
that are installed here do not exist."""

import pathlib

PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "numpy", "jaxtyping", "absl", "ml_collections",
    # What these import by themselves.
    "ml_dtypes", "opt_einsum", "msgpack", "typing_extensions", "wadler_lindig", "rich", "yaml",
    # jax's plugins for accelerators, where tests have some.
    "jax_cuda12_plugin", "jax_plugins", "nvidia", "libtpu",
)  # fmt: skip

_SITE = """
import sys
from importlib import machinery

KNOWN = {*sys.stdlib_module_names, "ssldiff_jax", "configs", *PACKAGES}


class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        # Python's own modules of the machine begin so.
        if top in KNOWN or top.startswith("_"):
            return machinery.PathFinder.find_spec(name, path, target)
        return None

    def find_distributions(self, context):
        names = {"absl_py": "absl"}
        for distribution in machinery.PathFinder.find_distributions(context):
            name = distribution.name.replace("-", "_").lower()
            if names.get(name, name) in KNOWN:
                yield distribution

    def invalidate_caches(self):
        machinery.PathFinder.invalidate_caches()


sys.meta_path[:] = [Only() if f is machinery.PathFinder else f for f in sys.meta_path]
"""


def environment(folder: pathlib.Path) -> dict[str, str]:
    """What makes a process one of such a machine, and the processes that it starts."""
    # Imported by Python when it starts, before anything else.
    (folder / "sitecustomize.py").write_text(f"PACKAGES = {PACKAGES!r}\n{_SITE}")
    return {"PYTHONPATH": str(folder)}
