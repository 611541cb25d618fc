"""What the tool `generate` generates from: a slide, an image, a grid, or what a prior samples."""

import dataclasses

from ssldiff_jax.core import arrays
from ssldiff_jax.generation import generator, grid_edits, user_images
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs.config import prior as prior_config
from ssldiff_jax.runs.config import tools as tools_config
from ssldiff_jax.sampler import conditions, shrunk
from ssldiff_jax.slides import ground


@dataclasses.dataclass(frozen=True)
class Source:
    """What an image is generated from: pixels that are read as they are needed, and where they lie
    if anywhere; or a grid alone. `size` is in px of what is read, or, of a grid, of its cells;
    `native_mpp` is of the file, µm per pixel, 0 where there is none."""

    size: tuple[int, int]
    read: conditions.ReadFn | None
    grid: arrays.EmbeddingGrid | None
    place: ground.Georeference | None = None
    native_mpp: float = 0.0

    @classmethod
    def of_run(cls, artifacts: artifacts_lib.Artifacts, model: generator.Generator) -> "Source":
        """The first reference of a run."""
        first = artifacts.references(model.embed)[0]
        size, read = first.image.shape[:2], conditions.array_reader(first.image)
        return cls(size, read, first.grid)

    @classmethod
    def open(cls, model: generator.Generator, section: tools_config.GenerateSection) -> "Source":
        """The image, or the grid, that the config names."""
        if grid_edits.is_grid(section.reference):
            grid = grid_edits.load_grid(section.reference)
            finest = model.planner.finest
            # Cells of windows are as many of the first level.
            px = model.patch_px if finest.takes(grid) else model.patch_px * finest.ratio
            return cls(tuple(n * px for n in grid.shape[:2]), None, grid)
        user_image = user_images.UserImage.open(
            model.reading_data, section.reference, mpp=section.mpp
        )
        if section.region:
            user_image = user_image.part(*section.region)
        return cls(user_image.size, user_image.read, None, user_image.place, user_image.native_mpp)

    @classmethod
    def of_prior(
        cls, model: generator.Generator, section: tools_config.GenerateSection, seed: int
    ) -> "Source":
        """A grid that the prior samples, as the config asks."""
        if section.reference or not section.size:
            raise ValueError(
                "what is asked for must come with generate.size=(height,width) and no "
                "generate.reference, "
                f"got size={section.size} and reference={section.reference!r}"
            )
        # Before a grid is sampled that no image could be made of.
        model.require_finer()
        request = section.prior
        grid = model.sample_grid(
            # Rounded up, so that cells cover the image.
            tuple(-(-px // model.patch_px) * model.patch_px for px in section.size),
            text=request.text,
            labels=prior_config.named_values(request.labels),
            numbers=prior_config.named_values(request.numbers),
            seed=seed,
            temperature=request.temperature,
        )
        # With its tokens: what is kept beside the image is what the denoiser is given.
        return cls(tuple(section.size), None, model.finer(grid, seed=seed))

    def shrunk(self, factor: int) -> "Source":
        """The same in fewer pixels, over the same ground."""
        if factor == 1:
            return self
        small = shrunk.coarse_of(self.pixels("coarse"), factor)
        place = self.place and self.place.scaled(factor, factor)
        return Source(small.shape[:2], conditions.array_reader(small), None, place)

    def pixels(self, why: str) -> arrays.Pixels:
        """All of them, in memory."""
        if self.read is None:
            raise ValueError(f"generate.{why} needs the pixels of a reference, got a grid")
        return self.read(0, 0, *self.size)
