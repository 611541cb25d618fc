"""The power of an objective that sees pixels of some size, and how TIFF files say it."""

from xml.sax import saxutils

from ssldiff_jax.slides import multiband

_POWERS = (1.25, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0)
# Scanners of one power differ in the size of their pixels: 40× has 0.22 … 0.275 µm.
_TOLERANCE = 0.15
_POWER_TIMES_MPP = 10.0  # 40× has pixels of 0.25 µm


def power(mpp: float) -> float | None:
    """The usual objective for pixels of `mpp` µm, 40 for 0.25; None where none is near within 15 %,
    as for the pixels of satellites."""
    nearest = min(_POWERS, key=lambda x: abs(mpp * x / _POWER_TIMES_MPP - 1))
    return nearest if abs(mpp * nearest / _POWER_TIMES_MPP - 1) <= _TOLERANCE else None


def description(mpp: float) -> str | None:
    """The ImageDescription of a TIFF by which OpenSlide, and with it QuPath, knows the objective;
    None where there is none.

    OpenSlide knows it in scanners' files alone, of which Aperio's are plain TIFFs. The first word
    is what it looks for; Bio-Formats and tifffile look for more and take the file for what it is.
    """
    found = power(mpp)
    if found is None:
        return None
    return f"Aperio-style description of a generated image|AppMag = {found:g}|MPP = {mpp!r}"


def ome_xml(
    name: str,
    size: tuple[int, int],
    mpp: float,
    bands: multiband.MultibandConfig = multiband.NO_BANDS,
) -> str:
    """The OME-XML of an image of (height, width) px, with its objective where one is known: RGB in
    one page, or named bands in a page each."""
    found, (height, width) = power(mpp), size
    instrument = settings = ""
    if found is not None:
        instrument = (
            '<Instrument ID="Instrument:0"><Objective ID="Objective:0" '
            f'NominalMagnification="{found:g}"/></Instrument>'
        )
        settings = '<InstrumentRef ID="Instrument:0"/><ObjectiveSettings ID="Objective:0"/>'
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'{instrument}<Image ID="Image:0" Name={saxutils.quoteattr(name)}>{settings}'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
        f'Type="{bands.dtype}" SizeX="{width}" SizeY="{height}" SizeC="{bands.count}" SizeZ="1" '
        f'SizeT="1" PhysicalSizeX="{mpp}" PhysicalSizeXUnit="µm" '
        f'PhysicalSizeY="{mpp}" PhysicalSizeYUnit="µm" {_channels(bands)}'
        "</Pixels></Image></OME>"
    )


def _channels(bands: multiband.MultibandConfig) -> str:
    if not bands.is_used:
        return (
            'Interleaved="true">'
            '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/>'
        )
    channels = "".join(
        f'<Channel ID="Channel:0:{n}" Name={saxutils.quoteattr(name)} SamplesPerPixel="1"/>'
        for n, name in enumerate(bands.names)
    )
    pages = "".join(
        f'<TiffData IFD="{n}" FirstC="{n}" PlaneCount="1"/>' for n in range(bands.count)
    )
    return f'Interleaved="false">{channels}{pages}'
