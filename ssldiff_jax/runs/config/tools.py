"""The sections of the tools, which stand outside a run's record: each is noted in the folder of its
tool. That of `study` has a file of its own."""

import dataclasses
import math
from typing import Literal

from ssldiff_jax.core import names, pixel_units, schema
from ssldiff_jax.runs.config import prior as prior_config
from ssldiff_jax.slides import geojson, placing
from ssldiff_jax.train import chips

BENCH_PARTS = (
    "network", "decode", "weights", "archive", "input", "images", "training", "evaluation",
)  # fmt: skip
TRAINED = ("denoiser", "distill", "autoencoder", "encoder", "prior", "tokens")


GRIDS = (".npy", ".h5", ".hdf5")
"""What files of embeddings end in."""


def rectangle(area: str) -> tuple[float, ...]:
    """x, y, width and height of "x,y,width,height". Raises ValueError for another text."""
    left, top, width, height = (float(part) for part in area.split(","))
    # Not a comparison of what is wrong: NaN would pass it.
    if not (0 <= left < math.inf and 0 <= top < math.inf and 0 < width < math.inf > height > 0):
        raise ValueError(area)
    return left, top, width, height


@dataclasses.dataclass(frozen=True)
class CoarseConfig:
    """The coarse image that is generated first, and that the image is then held to: by the `models`
    of another run or of an export, "" being those of this one; sampled as config.sample of these
    has it, with the changes of `sample`. Neither asks for none."""

    models: str
    sample: str

    @property
    def is_asked(self) -> bool:
        """Whether there is one."""
        return bool(self.models or self.sample.strip())


@dataclasses.dataclass(frozen=True)
class GenerateSection:
    """What the tool `generate` makes, what it starts from, and the name of its folder."""

    reference: str
    mpp: float
    region: tuple[int, ...]
    area: str
    size: tuple[int, ...]
    strength: float
    mask: str
    control: str
    outpaint_px: int
    prior: prior_config.PriorRequestConfig
    blend_with: str
    blend_amount: float
    edits: tuple[str, ...]
    held_to: str
    coarse: CoarseConfig
    name: str = dataclasses.field(metadata={"digest": False})
    metres: float = dataclasses.field(metadata={"digest": False})
    crs: str
    bounds: tuple[float, ...]
    origin: tuple[float, ...]
    cells: tuple[Literal["geojson", "h5ad"], ...]

    def __post_init__(self):
        pixel_units.settle(self, "generate")
        # It becomes the name of a folder.
        names.require("generate.name", self.name)
        if len(self.size) not in (0, 2) or any(px < 1 for px in self.size):
            raise schema.ConfigError(
                f"config.generate.size must be (height, width) of at least 1 px, or (), got "
                f"{self.size}"
            )
        if self.region or self.area:
            self._check_region()
        if not 0 < self.strength <= 1 or not 0 <= self.blend_amount <= 1 or self.outpaint_px < 0:
            raise schema.ConfigError(
                "config.generate must have 0 < strength ≤ 1, 0 ≤ blend_amount ≤ 1 and "
                "outpaint_px ≥ 0, got "
                f"{self.strength}, {self.blend_amount} and {self.outpaint_px}"
            )
        if self.coarse.is_asked:
            self._check_coarse()
        try:
            # For its error: what is no place is refused with the config.
            _ = self.place
        except ValueError as error:
            raise schema.ConfigError(f"config.generate.{error}") from None

    @property
    def place(self) -> placing.Place | None:
        """Where the image shall lie, if that was said."""
        if not (self.crs or self.bounds or self.origin):
            return None
        return placing.Place(self.crs, self.bounds, self.origin)

    def _check_region(self) -> None:
        """A rectangle of an image: grids are cut before they are given."""
        if self.region and self.area:
            raise schema.ConfigError(
                "config.generate must have region or area, not both, got "
                f"{self.region} and {self.area!r}"
            )
        if self.area:
            self._check_area()
        elif len(self.region) != 4 or min(self.region) < 0 or min(self.region[2:]) < 1:
            raise schema.ConfigError(
                "config.generate.region must be (top, left, height, width) in px, or (), got "
                f"{self.region}"
            )
        if not self.reference or self.reference.lower().endswith(GRIDS):
            raise schema.ConfigError(
                f"config.generate.{'area' if self.area else 'region'} must come with an image as "
                f"generate.reference, got {self.reference!r}"
            )

    def _check_area(self) -> None:
        if geojson.split_name(self.area):
            return
        try:
            rectangle(self.area)
        except ValueError:
            raise schema.ConfigError(
                "config.generate.area must be x,y,width,height in px of level 0, or "
                f"file.geojson#name, got {self.area!r}"
            ) from None

    def _check_coarse(self) -> None:
        """What is generated first is the whole image, from what can be had at another scale."""
        others = ("held_to", "mask", "outpaint_px", "blend_with", "edits")
        named = [name for name in others if getattr(self, name)]
        named += ["strength"] if self.strength < 1 else []
        named += ["reference (a grid)"] if self.reference.endswith(".npy") else []
        if named:
            raise schema.ConfigError(
                "config.generate.coarse must come with an image, or a request to the prior, and "
                f"nothing else to start from, got generate.{', generate.'.join(named)}"
            )


@dataclasses.dataclass(frozen=True)
class SweepSection:
    """Sampler settings that the tool `sweep` compares, as changes of the section sample; how often
    each region is generated; and how many times smaller the region is that it is held to."""

    variants: tuple[str, ...]
    num_generated: int
    held: tuple[int, ...]

    def __post_init__(self):
        if not self.variants or self.num_generated < 1:
            raise schema.ConfigError(
                f"config.sweep must have variants and num_generated ≥ 1, got {self.variants} and "
                f"{self.num_generated}"
            )
        if not self.held or any(factor < 0 or factor == 1 for factor in self.held):
            raise schema.ConfigError(
                "config.sweep.held must be 0, which holds to nothing, or whole numbers above 1, "
                f"got {self.held}"
            )


@dataclasses.dataclass(frozen=True)
class PlanSection:
    """What the tool `plan` plans for, kind:count ("" for the devices at hand), and how many slides
    it looks at (0: all)."""

    devices: str
    num_slides: int

    def __post_init__(self):
        if self.devices:
            chips.Group.named(self.devices)
        if self.num_slides < 0:
            raise schema.ConfigError(
                f"config.plan.num_slides must be 0 or more, got {self.num_slides}"
            )


@dataclasses.dataclass(frozen=True)
class BenchSection:
    """What the tool `bench` measures: sides of the large images it generates, how many of the
    published algorithm's 50 steps it does to compare (0: none), whose training steps at which
    batches (0: the config's); most seconds for each part and for all (0: no end)."""

    parts: tuple[str, ...]
    train: tuple[str, ...]
    batch_size: tuple[int, ...]
    profile: bool
    sizes: tuple[int, ...]
    paper_steps: int
    limit_s: float
    total_s: float

    def __post_init__(self):
        _require_known("bench.parts", self.parts, BENCH_PARTS)
        _require_known("bench.train", self.train, TRAINED)
        if any(px < 1 for px in self.sizes) or not 0 <= self.paper_steps <= 50:
            raise schema.ConfigError(
                "config.bench must have sizes of at least 1 px and 0 ≤ paper_steps ≤ 50, got "
                f"{self.sizes} and {self.paper_steps}"
            )
        if self.limit_s < 0 or self.total_s < 0:
            raise schema.ConfigError(
                "config.bench must have limit_s ≥ 0 and total_s ≥ 0, got "
                f"{self.limit_s} and {self.total_s}"
            )


@dataclasses.dataclass(frozen=True)
class CompileSection:
    """What the tool `compile` compiles: programs, for slices (v5e:16x16, h200:8) and global
    batches (0: the config's); for TPUs at a level of optimisation. `scaling` are numbers of devices
    for which it is reckoned what steps send."""

    topology: tuple[str, ...]
    programs: tuple[str, ...]
    batch_size: tuple[int, ...]
    scaling: tuple[int, ...]
    optimization_level: Literal["O0", "O1", "O2", "O3"]

    def __post_init__(self):
        for topology in self.topology:
            # For its error: an unknown slice is refused with the config.
            known = chips.Slice.named(topology)
            if self.scaling:
                chips.network(known.generation)
        _require_known("compile.programs", self.programs, (*TRAINED, "sampler"))
        if any(devices < 1 for devices in self.scaling):
            raise schema.ConfigError(
                f"config.compile.scaling must be numbers of devices, at least 1, got {self.scaling}"
            )


@dataclasses.dataclass(frozen=True)
class VariationsSection:
    """What the tool `variations` regenerates."""

    image: str
    mpp: float
    num_patches: int
    num_generated: int
    num_regions: int
    metres: float = dataclasses.field(metadata={"digest": False})

    def __post_init__(self):
        pixel_units.settle(self, "variations")
        if self.num_patches < 1 or self.num_generated < 1 or self.num_regions < 0:
            raise schema.ConfigError(
                "config.variations must have num_patches and num_generated ≥ 1 and num_regions ≥ "
                "0, "
                f"got {self.num_patches}, {self.num_generated} and {self.num_regions}"
            )


@dataclasses.dataclass(frozen=True)
class CompareSection:
    """Folders of images, or .npy arrays of pixels, for the tool `compare`; `paired` where each was
    generated from the real one at the same place in the order of names."""

    real: str
    generated: str
    paired: bool


@dataclasses.dataclass(frozen=True)
class ExportSection:
    """What the tool `export` says of the models: their licence, "" where none is stated."""

    licence: str


@dataclasses.dataclass(frozen=True)
class FeaturesSection:
    """Slides whose embeddings the tool `features` writes ("": the run's own), their microns per
    pixel (0: what their files say), the least tissue of a patch, the folder ("": `bags` in the work
    directory), and the formats."""

    slides: str
    mpp: float
    min_tissue: float
    folder: str
    formats: tuple[Literal["h5", "h5ad"], ...]

    def __post_init__(self):
        if "h5" not in self.formats:
            raise schema.ConfigError(
                "config.features.formats must have h5, of which the others are made, got "
                f"{self.formats}"
            )
        if self.mpp < 0 or not 0 <= self.min_tissue <= 1:
            raise schema.ConfigError(
                "config.features must have mpp ≥ 0 and 0 ≤ min_tissue ≤ 1, got "
                f"{self.mpp:g} and {self.min_tissue:g}"
            )


@dataclasses.dataclass(frozen=True)
class PatchImagesSection:
    """The folder that the tool `patch_images` writes records into."""

    folder: str


def _require_known(key: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise schema.ConfigError(f"config.{key} must be of {', '.join(known)}, got {name!r}")
