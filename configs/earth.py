"""From a sentence to the Earth: the demo's models on NASA's Blue Marble, and a prior that reads.

bash launch/earth.sh
"""

from configs import blue_marble


def get_config():
    """The classes of pixels that data/annotations/measures.py states, in words."""
    config = blue_marble.get_config()
    config.prior.conditions.captions = "measured"
    config.prior.conditions.text_encoder = ".venv/share/ssldiff_jax/all-MiniLM-L6-v2"
    # Half of the time a text is all that is said.
    config.prior.drop.kind = 0.5
    config.prior.train.num_steps = 2500
    return config
