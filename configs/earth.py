"""From a sentence to the Earth: the demo's models on NASA's Blue Marble, and a prior that reads.

bash launch/earth.sh
"""

from configs import blue_marble


def get_config():
    """The classes of pixels that data/annotations/measures.py states, in words."""
    config = blue_marble.get_config()
    config.prior.conditions.captions = "measured"
    config.prior.conditions.text_encoder = ".venv/share/ssldiff_jax/all-MiniLM-L6-v2"
    # Snow and sand are fainter than any stain, and an autoencoder learns them last.
    config.autoencoder.loss.spectrum_weight = 0.2
    config.autoencoder.train.num_steps = 1200
    config.prior.grids.count = 9000
    config.prior.grids.max_cells = 8
    config.tokens.train.num_steps = 1500
    # Coasts go on from cell to cell.
    config.tokens.max_offset = 2
    # Half of the time a text is all that is said. The noise stands for words that training has not.
    config.prior.drop.kind = 0.5
    config.prior.drop.text_noise = 1.2
    config.prior.guidance.scale = 3.0
    config.prior.train.num_steps = 2500
    # Classes are rare: of few images a correlation is anything.
    config.imagine.count = 64
    return config
