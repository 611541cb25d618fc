"""Two scales in one command: the coarse image, by models of a larger scale, before the fine one
that is held to it."""

import dataclasses
import pathlib
from typing import Any

from jax.sharding import Mesh

from ssldiff_jax.core import pixel_units, rng, schema
from ssldiff_jax.formats import fingerprints
from ssldiff_jax.generation import generator, loading, plan, render
from ssldiff_jax.runs.config import sample_changes
from ssldiff_jax.runs.config import tools as tools_config
from ssldiff_jax.slides import ground, pictures, pyramid

NAME = "coarse"
"""Of the coarse image's files."""


@dataclasses.dataclass(frozen=True, eq=False)
class CoarseScale:
    """What generates coarse images for a finer model.

    Attributes:
        model: of a larger scale.
        factor: how many of the finer model's pixels are one of its.
        reads: how many pixels of what the finer model reads are one of what it reads itself; 1
            where both are conditioned on patches of one level.
    """

    model: generator.Generator
    factor: int
    reads: int

    @classmethod
    def of(
        cls, section: tools_config.CoarseConfig, finer: generator.Generator, mesh: Mesh
    ) -> "CoarseScale":
        """The models that a config names, on the devices of a mesh.

        Raises ConfigError where their scale is no whole number of times the finer one's, two or
        more.
        """
        model = finer
        if section.models:
            loaded = loading.load(section.models)
            model = generator.Generator(loaded.config, loaded.trained, mesh)
        if section.sample.strip():
            key = "config.generate.coarse.sample"
            model = model.with_sample(sample_changes.changed(model.config, section.sample, key))
        factor = _whole_ratio(model.mpp, finer.mpp)
        if factor < 2:
            raise schema.ConfigError(
                "config.generate.coarse must name models of two or more whole times the fine "
                f"ones' {pixel_units.per_pixel(finer.mpp)}, got "
                f"{pixel_units.per_pixel(model.mpp)}"
            )
        read, own = model.reading_data.patch_mpp, finer.reading_data.patch_mpp
        reads = _whole_ratio(read, own)
        if not reads:
            raise schema.ConfigError(
                "config.generate.coarse must name models that read whole times the fine ones' "
                f"{pixel_units.per_pixel(own)}, got {pixel_units.per_pixel(read)}"
            )
        return cls(model, factor, reads)

    def size_of(self, fine: tuple[int, ...]) -> tuple[int, ...]:
        """Pixels of the coarse image of an image of `fine` px; () for ().

        Raises ConfigError where they are no whole ones.
        """
        return _divided(fine, self.factor, "size")

    def read_of(self, fine: tuple[int, ...], key: str) -> tuple[int, ...]:
        """The same of a reference's pixels, which the config says in `generate.key`."""
        return _divided(fine, self.reads, key)

    def render(
        self,
        image_plan: plan.ImagePlan,
        folder: pathlib.Path,
        output: Any,
        place: ground.Georeference | None,
    ) -> render.LargeImageRender:
        """The coarse image on its way into `folder/coarse.png` and the other formats."""
        # The finer image is held to its very pixels.
        bands = self.model.config.data.reading.multiband
        formats = tuple(dict.fromkeys((*pictures.formats(bands), *output.formats)))
        scale = pyramid.Scale(self.model.mpp, output.quality, place, output.ngff, bands)
        return render.LargeImageRender(
            self.model.renderer, image_plan, folder, NAME, formats, scale
        )


def _whole_ratio(coarse: float, fine: float) -> int:
    """How many times one is the other; 0 for no whole number of times."""
    ratio = round(coarse / fine)
    return ratio if abs(ratio * fine - coarse) <= 1e-6 * coarse else 0


def _divided(px: tuple[int, ...], factor: int, key: str) -> tuple[int, ...]:
    if any(n % factor for n in px):
        raise schema.ConfigError(
            f"config.generate.{key} must be multiples of the coarse image's factor, {factor}, got "
            f"{px}"
        )
    return tuple(n // factor for n in px)


def seed_of(seed: int) -> int:
    """Of the coarse image's noise: that of another image."""
    return rng.seed_of(seed, "generate/coarse")


def whole(size: tuple[int, int], factor: int) -> tuple[int, int]:
    """As much of an image as whole coarse pixels cover."""
    return size[0] - size[0] % factor, size[1] - size[1] % factor


def fingerprint(models: str) -> dict[str, Any] | None:
    """Size and time of what the models of a run, or of an export, were made with."""
    if not models:
        return None
    path = pathlib.Path(models).expanduser()
    done = path / "denoiser" / "done.json"
    return fingerprints.of_path(str(done if done.exists() else path), "generate.coarse.models")
