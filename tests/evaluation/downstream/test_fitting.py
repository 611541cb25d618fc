"""What is fitted and what it predicts do not depend on a device's default products."""

import jax
import jax.numpy as jnp
import numpy as np

from ssldiff_jax.evaluation.downstream import fitting


def test_products_are_exact_in_fits_and_predictions():
    asked = []

    def product(params, batch):
        asked.append(jax.config.jax_default_matmul_precision)
        return batch["x"] @ params

    examples = {"x": np.eye(4, 3, dtype=np.float32)}
    config = fitting.FitConfig(num_steps=2, batch_size=2, learning_rate=0.1, weight_decay=0.0)
    fitter = fitting.Fitter(
        lambda key: jnp.ones(3), lambda params, batch, key: product(params, batch).sum(), config
    )
    with jax.default_matmul_precision("bfloat16"):
        params = fitter.fit(examples, seed=0)
        fitting.in_batches(jax.jit(product), params, examples, 2)
    assert asked == ["highest"] * 2
    assert fitter.num_traces == 1
