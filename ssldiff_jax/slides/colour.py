"""From the colours of an ICC profile to sRGB."""

import io

from PIL import Image, ImageCms

ERRORS = (OSError, ValueError, ImageCms.PyCMSError)
"""What a damaged profile raises, or one of other pixels than the image's."""

_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # colour space of a profile → pixels for it
_NOT_RGB = {"CMYK", "LAB", "HSV"}


class ToSrgb:
    """Convert images to sRGB by one profile, with the rendering intent it asks for."""

    def __init__(self, profile: ImageCms.ImageCmsProfile):
        space = profile.profile.xcolor_space.strip()
        if space not in _MODES:
            raise ValueError(f"expected an ICC profile of RGB, gray or CMYK pixels, got {space}")
        self._mode = _MODES[space]
        self._transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            self._mode,
            "RGB",
            renderingIntent=ImageCms.getDefaultIntent(profile),
        )

    @classmethod
    def from_bytes(cls, profile: bytes) -> "ToSrgb":
        """The conversion of a profile as files embed it."""
        return cls(ImageCms.ImageCmsProfile(io.BytesIO(profile)))

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return RGB, or RGBA with the transparency of `image`. Raises ValueError for pixels that
        the profile does not describe."""
        is_gray = image.mode in ("1", "L", "LA")
        fits = {"RGB": image.mode not in _NOT_RGB, "L": is_gray, "CMYK": image.mode == "CMYK"}
        if not fits[self._mode]:
            raise ValueError(
                f"expected pixels of mode {self._mode} as the ICC profile has, got {image.mode}"
            )
        converted = ImageCms.applyTransform(image.convert(self._mode), self._transform)
        if image.has_transparency_data:
            converted.putalpha(image.convert("RGBA").getchannel("A"))
        return converted
