"""What a compiler is asked for, and what networks compute in, depend on the device, on its version
and on the environment."""

import jax
import pytest

from ssldiff_jax.core import platform

MADE_UP = "xla_gpu_of_another_version"


def refusal(options):
    """What XLA says against options."""
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        jax.jit(lambda x: x + 1).lower(1.0).compile(compiler_options=options)
    return str(caught.value)


def test_options_that_this_xla_has_not_are_left_out():
    assert MADE_UP in refusal({MADE_UP: 1})
    kept = platform.known({"xla_gpu_autotune_level": 2, MADE_UP: 1})
    assert kept == {"xla_gpu_autotune_level": 2}


def test_gpu_programs_are_compiled_with_what_is_known(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert platform.compiler_options() == {}
    with platform.compile_for("tpu"):
        assert platform.compiler_options() == {}
    with platform.compile_for("gpu"):
        options = platform.compiler_options()
    # In every XLA that this runs on; the others came or went with versions.
    assert options["xla_gpu_enable_triton_gemm"] is False
    assert options["xla_gpu_autotune_level"] == 2
    assert float(jax.jit(lambda x: x + 1, compiler_options=options)(1.0)) == 2


def test_what_the_environment_sets_is_left_to_it(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_autotune_level=0 --xla_dump_to=x")
    with platform.compile_for("gpu"):
        options = platform.compiler_options()
    assert "xla_gpu_autotune_level" not in options
    assert options["xla_gpu_enable_triton_gemm"] is False


@pytest.mark.parametrize(
    ("target", "auto"), [("cpu", "float32"), ("gpu", "bfloat16"), ("tpu", "bfloat16")]
)
def test_the_dtype_of_networks_follows_the_platform_unless_it_is_chosen(target, auto):
    with platform.compile_for(target):
        assert platform.network_dtype("auto") == auto
        for choice in ("float32", "bfloat16"):
            assert platform.network_dtype(choice) == choice
    assert platform.target() == jax.default_backend()
