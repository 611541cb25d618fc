"""Weights of FID's InceptionV3, drawn as the recording says."""

import numpy as np


def drawn(convolutions):
    """The state dict that was recorded from."""
    rng, state = np.random.default_rng(0), {}
    for name, shape in convolutions.items():
        vector = lambda draw, *args, n=shape[0]: draw(*args, n).astype(np.float32)
        spread = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        state[f"{name}.conv.weight"] = rng.standard_normal(shape, np.float32) * spread
        state[f"{name}.bn.weight"] = vector(rng.uniform, 0.5, 1.5)
        state[f"{name}.bn.bias"] = vector(rng.normal, 0, 0.1)
        state[f"{name}.bn.running_mean"] = vector(rng.normal, 0, 0.1)
        state[f"{name}.bn.running_var"] = vector(rng.uniform, 0.5, 1.5)
    return state
