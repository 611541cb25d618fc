"""For which kind of device a program is written: the one at hand, or another it is compiled for;
and what its compiler is asked for."""

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax

_OTHER: list[str] = []

# A GPU's compiler tries ways to compute each product, convolution and fusion. By default it takes
# minutes to hours of CPU time for a large network, nearly all of it for what these leave out.
_GPU = {
    # Products by cuBLASLt alone: Triton compiles some thirty kernels for each.
    "xla_gpu_enable_triton_gemm": False,
    # Reductions and transposes by one emitter, instead of each compiled by two.
    "xla_gpu_experimental_enable_fusion_autotuner": False,
    # The fastest is taken as before; that all give the same is not checked.
    "xla_gpu_autotune_level": 2,
    # Of cuBLASLt's 128 algorithms for a product.
    "xla_gpu_blas_max_algorithms": 16,
}


def target() -> str:
    """cpu, gpu or tpu."""
    return _OTHER[-1] if _OTHER else jax.default_backend()


def network_dtype(choice: str) -> str:
    """What networks compute in: float32 or bfloat16 as chosen, or, for auto, what suits the target.

    On accelerators bfloat16 is twice as fast and half the bytes; a CPU has no units for it.
    """
    if choice != "auto":
        return choice
    return "float32" if target() == "cpu" else "bfloat16"


def compiler_options() -> dict[str, Any]:
    """What `jax.jit` takes for programs of `target()`; options that this version of XLA has not, or
    that XLA_FLAGS sets, are left out."""
    return known(_GPU) if target() == "gpu" else {}


def known(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options of a compiler that it knows and that XLA_FLAGS says nothing of."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {
        name: value
        for name, value in options.items()
        if f"--{name}=" not in flags and _is_known(name, value)
    }


@functools.cache
def _is_known(name: str, value: Any) -> bool:
    # XLA lists its options nowhere; it refuses those it has not.
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError as error:
        if name not in str(error):
            raise
        return False
    return True


@contextlib.contextmanager
def compile_for(platform: str) -> Iterator[None]:
    """Write what is traced in the block for another kind of device."""
    _OTHER.append(platform)
    try:
        yield
    finally:
        _OTHER.pop()
