"""The section `data.reading`: what stored values of a file become in a record."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    c = ConfigDict()
    # Bands of a raster that are red, green and blue, or the one that is all; () is those called so,
    # else the first three. Where multiband names bands: a number for each.
    c.bands = ()
    # Values of a raster that become black and white; both 0 takes 8 bits as they are.
    c.low = 0.0
    c.high = 0.0
    # stored, or srgb: by the file's ICC profile.
    c.colour = "stored"
    c.multiband = _multiband()
    return c


def _multiband() -> ConfigDict:
    c = ConfigDict()
    # What records hold where RGB is not enough: names of 1 to 8 bands, in the order of
    # reading.bands. (): red, green and blue.
    c.names = ()
    # Values of every band that become 0 and the largest of a record; (): all values of `bits`.
    c.low = ()
    c.high = ()
    # 8 or 16 of a record, which is stored without loss.
    c.bits = 8
    # The one or three bands of pictures, tissue and judges, as red, green and blue; (): those
    # called so.
    c.shown = ()
    # Those that the encoder sees; (): the same.
    c.encoded = ()
    return c
