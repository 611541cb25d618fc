"""The scale that a slide's file says, whatever it is read by."""

import contextlib

from ssldiff_jax.slides import slide as slide_lib


def said(slide: slide_lib.Slide) -> float | None:
    """Microns per pixel in the file of an open slide; None where it says none, or there is none."""
    if not slide.path.exists():
        return None
    try:
        with contextlib.closing(slide_lib.open_slide(slide.path)) as alone:
            return alone.mpp
    except slide_lib.SlideError:
        return None
