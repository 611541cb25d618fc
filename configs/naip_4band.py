"""The aerial demo in four bands: infrared is stored, generated and written beside the colours.

    python -m ssldiff_jax.main --config=configs/naip_4band.py --workdir=runs/naip_4band \
        --config.data.slides='/data/naip/*.tif'

Like configs/naip_demo.py otherwise. Records are stored without loss; the encoder sees infrared,
red and green, as pictures in false colour show plants; pictures and the judge see red, green and
blue. Large images are also written as GeoTIFF of all bands. Land cover is measured in what is
generated, too.
"""

from configs import naip_demo


def get_config():
    """The aerial demo with infrared."""
    config = naip_demo.get_config()
    bands = config.data.reading.multiband
    bands.names = ("red", "green", "blue", "infrared")
    bands.shown = ("red", "green", "blue")
    bands.encoded = ("infrared", "red", "green")
    config.autoencoder.model.bands = 4
    config.sample.output.formats = ("cog.tif",)
    return config
