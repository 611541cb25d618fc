"""From a sentence to the Earth: the demo's models on NASA's Blue Marble, and a prior that reads.

bash launch/earth.sh
"""

from configs import blue_marble, demo


def get_config():
    """The classes of pixels that data/annotations/measures.py states, in words."""
    config = blue_marble.get_config()
    demo.learn_words(config)
    # Snow and sand are fainter than any stain, and an autoencoder learns them last.
    config.autoencoder.loss.spectrum_weight = 0.2
    config.autoencoder.train.num_steps = 1200
    config.prior.grids.count = 9000
    config.prior.grids.max_cells = 8
    config.tokens.train.num_steps = 1500
    # Coasts go on from cell to cell.
    config.tokens.max_offset = 2
    return config
