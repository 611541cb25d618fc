"""Open any slide or image at a given mpp, find its tissue, write pyramids.

Everything here is host code on uint8 NumPy arrays; nothing touches an accelerator.
"""

from ssldiff_jax.slides.slide import Slide, SlideError, find_slides, open_slide, slide_of

__all__ = ["Slide", "SlideError", "find_slides", "open_slide", "slide_of"]
