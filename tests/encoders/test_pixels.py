"""Images as networks want them, against Pillow, which those who trained the networks resized by."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssldiff_jax.core import digests
from ssldiff_jax.encoders import attention_pool, encoder, known, pixels

MEAN, STD = (0.7, 0.5, 0.3), (0.2, 0.25, 0.1)


def photo(height, width):
    """Something smooth, with an edge."""
    rows, cols = np.mgrid[:height, :width]
    waves = [np.sin(rows / (7 + c)) + np.cos(cols / (5 + c)) for c in range(3)]
    image = np.clip(127 + 60 * np.stack(waves, axis=-1), 0, 255)
    image[height // 3 : height // 2, width // 4 : width // 2] = (250, 3, 128)
    return image.astype(np.uint8)


@pytest.mark.parametrize(
    ("kind", "filter_", "how"),
    [(0, "linear", Image.Resampling.BILINEAR), (0, "cubic", Image.Resampling.BICUBIC),
     (40, "cubic", Image.Resampling.BICUBIC)],
)  # fmt: skip
@pytest.mark.parametrize("size", [(48, 48), (64, 64), (20, 20), (30, 50)])
def test_images_are_prepared_as_pillow_and_torchvision_prepare_them(kind, filter_, how, size):
    image, side = photo(*size), kind or 32
    resized = Image.fromarray(image).resize((side, side), how)
    margin = (side - 32) // 2
    cropped = resized.crop((margin, margin, margin + 32, margin + 32))
    expected = (np.asarray(cropped) / 255 - np.array(MEAN)) / np.array(STD)
    expects = pixels.Pixels(32, MEAN, STD, kind, filter_)
    found = expects.prepare(jnp.asarray(image[None] / 127.5 - 1, jnp.float32))[0]
    # Pillow rounds to bytes, once for rows and once for columns.
    assert np.abs((found - expected) * np.array(STD)).max() < 2.1 / 255
    assert np.abs((found - expected) * np.array(STD)).mean() < 0.5 / 255


def test_images_of_the_size_that_is_wanted_are_not_resized():
    image = jnp.asarray(photo(32, 32)[None] / 127.5 - 1, jnp.float32)
    for filter_ in ("linear", "cubic"):
        found = pixels.Pixels(32, filter=filter_).prepare(image)
        np.testing.assert_allclose(found, image, atol=1e-6)
    # Its middle, of the larger size.
    found = pixels.Pixels(20, resize_px=32).prepare(image)
    np.testing.assert_allclose(found, image[:, 6:26, 6:26], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "digest"),
    [("hipt", "20d60a9eb214"), ("uni2-h", "1bdc4a34a06e"), ("dinov2-giant", "09b96f764620")],
)
def test_digests_are_those_that_were_written_down(name, digest):
    """By versions whose settings were fewer."""
    settings = encoder.Architecture.published(name).settings
    assert digests.of_values("w", settings) == digest


def test_settings_that_decide_embeddings_are_in_the_digest():
    plain = encoder.Architecture(known.ENCODERS["uni"].vit, pixels.Pixels(224), "any")
    head = attention_pool.AttentionPool(8, 2)
    others = [
        plain,
        encoder.Architecture(plain.vit, pixels.Pixels(224, resize_px=256), "any"),
        encoder.Architecture(plain.vit, pixels.Pixels(224, filter="cubic"), "any"),
        encoder.Architecture(plain.vit, plain.pixels, "any", head),
    ]
    assert len({digests.of_values("w", other.settings) for other in others}) == len(others)
