"""The repository on the path, JAX on the CPU, and shapes checked while the tests run."""

import os
import pathlib
import sys

import beartype
from jaxtyping import install_import_hook

os.environ["JAX_PLATFORMS"] = "cpu"
# The suite's time is XLA compiling: small programs need no optimised code.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

# An int is a float, as PEP 484 has it.
typecheck = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))

CHECKED = ("core", "diffusion", "sampler", "evaluation", "encoders", "autoencoder")
install_import_hook([f"ssldiff_jax.{name}" for name in CHECKED], "conftest.typecheck")
