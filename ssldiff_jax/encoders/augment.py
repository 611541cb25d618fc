"""Views of a patch for self-supervision. Orientation is never changed here: an embedding has to
distinguish a patch from its mirror image, or it could not determine a layout."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ssldiff_jax.core import arrays

Views = Float[arrays.AnyArray, "B v v 3"]


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Half-widths of uniform brightness and contrast changes, and of a gain for each channel."""

    brightness: float
    contrast: float
    channel: float

    def __call__(
        self, key: arrays.Key, image: Float[arrays.AnyArray, "H W 3"]
    ) -> Float[jax.Array, "H W 3"]:
        """Jitter one image in [−1, 1]."""
        u = jax.random.uniform(key, (5,), minval=-1.0, maxval=1.0)
        mean = image.mean()
        # Contrast about the image's own mean, so that it leaves the brightness.
        image = (image - mean) * (1 + self.contrast * u[0]) + mean
        # A gain of light, which is 0 at −1.
        image = (image + 1) * (1 + self.channel * u[1:4]) - 1
        return jnp.clip(image + self.brightness * u[4], -1, 1)


def shifted_views(
    key: arrays.Key,
    image: arrays.Image,
    index: Int[arrays.AnyArray, "B"],
    view_px: int,
    jitter: ColorJitter,
) -> Views:
    """One random `view_px` square of every image, colours jittered: `(B, view_px, view_px, 3)`."""
    slack = image.shape[1] - view_px

    def one(key: arrays.Key, image: jax.Array) -> jax.Array:
        key_at, key_color = jax.random.split(key)
        top, left = jax.random.randint(key_at, (2,), 0, slack + 1)
        view = jax.lax.dynamic_slice(image, (top, left, 0), (view_px, view_px, 3))
        return jitter(key_color, view)

    # By the example's place in the stream: views do not depend on how devices share the batch.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    return jax.vmap(one)(keys, image)


def resized_views(
    key: arrays.Key,
    image: arrays.Image,
    index: Int[arrays.AnyArray, "B"],
    view_px: int,
    area: tuple[float, float],
    jitter: ColorJitter,
) -> Views:
    """A random square of `area` (fractions of the image's) resized to `view_px`, jittered."""
    side = image.shape[1]

    def one(key: arrays.Key, image: jax.Array) -> jax.Array:
        key_area, key_at, key_color = jax.random.split(key, 3)
        # Uniform in area, as SimCLR and DINO crop.
        crop = side * jnp.sqrt(jax.random.uniform(key_area, (), minval=area[0], maxval=area[1]))
        origin = jax.random.uniform(key_at, (2,)) * (side - crop)
        # scale_and_translate maps a pixel p of the image to scale·p + translation.
        scale = view_px / crop
        view = jax.image.scale_and_translate(
            image,
            (view_px, view_px, 3),
            (0, 1),
            jnp.stack([scale, scale]),
            -origin * scale,
            "linear",
        )
        return jitter(key_color, view)

    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    return jax.vmap(one)(keys, image)
