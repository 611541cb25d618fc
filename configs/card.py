"""One GPU or TPU measured in ten minutes: steps, large images and decoding at the published sizes.

    python -m ssldiff_jax.main --config=configs/card.py --workdir=runs/card

Data: none; weights are random. Needs jax for the card, flax, optax, numpy, jaxtyping,
ml_collections and absl-py, nothing else. Hardware: one card of 24 GB or more; what does not fit
is a row that says so. Rows: `bench/results.jsonl` in the work directory, each as soon as it is
measured. The same command goes on where the last one was ended: compiled programs and tried kernels
are in `compiled/`.
Expected: not measured.
"""

from configs import default


def get_config():
    """The published sizes; images in what a card computes fastest in, as by default."""
    c = default.get_config()
    c.stages = "bench"
    c.bench.parts = ("training", "images", "decode", "network")
    c.bench.batch_size = (64, 128, 32, 256)
    c.bench.sizes = (1024, 4096)
    # The published algorithm takes 33 times the calls of ours.
    c.bench.paper_steps = 0
    c.bench.limit_s = 200.0
    c.bench.total_s = 570.0
    return c
