"""The section `data` of a config: slides to records, records to patches."""

import dataclasses

from ssldiff_jax.core import pixel_units, schema
from ssldiff_jax.data import crops, loader, plan
from ssldiff_jax.data import engine as engine_lib
from ssldiff_jax.data.annotations import places
from ssldiff_jax.slides import reading, tissue


def names_table(slides: str) -> bool:
    """Whether `config.data.slides` names tables of slides: what these say is recorded beside it,
    and where they stand is no part of that."""
    return slides.lower().endswith((".csv", ".tsv"))


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Slides to records, records to patches. Scales in metres become those in microns, which alone
    are read."""

    slides: str
    # Where a table's slides lie: they are known by their content.
    folder: str = dataclasses.field(metadata={"digest": False})
    mpp: float
    patch_mpp: float
    # Steps that cut records know nothing of it: those that read crops record it.
    levels: tuple[float, ...] = dataclasses.field(metadata={"digest": False})
    reading: reading.ReadingConfig
    tissue: tissue.TissueConfig
    annotations: places.AnnotationsConfig
    holdout: plan.HoldoutConfig
    records: plan.RecordConfig
    regions: plan.RegionConfig
    crops: crops.CropConfig
    loader: loader.LoaderConfig
    archive: str = dataclasses.field(metadata={"digest": False})
    engine: engine_lib.EngineConfig = dataclasses.field(metadata={"digest": False})
    # Slides are known by what they hold, whichever list they come from.
    asset: str = dataclasses.field(metadata={"digest": False})
    metres: float = dataclasses.field(metadata={"digest": False})
    patch_metres: float = dataclasses.field(metadata={"digest": False})

    def __post_init__(self):
        pixel_units.settle(self, "data")
        self._check_levels()
        if not self.annotations.files:
            self.annotations.require_files(in_table=self.is_table)
        if self.records.record_px < self.crops.context_patch_px:
            raise schema.ConfigError(
                "config.data.records.record_px must hold a patch with its context, got "
                f"record_px={self.records.record_px}, patch_px={self.crops.patch_px}, "
                f"context_px={self.crops.context_px}"
            )
        if self.crops.condition_on == "cells" and self.records.record_px < 2 * self.crops.patch_px:
            raise schema.ConfigError(
                "config.data.records.record_px must hold 2×2 cells where "
                "data.crops.condition_on=cells, "
                f"got record_px={self.records.record_px}, patch_px={self.crops.patch_px}"
            )

    def _check_levels(self) -> None:
        levels, scales = self.levels, self.records.scales
        if levels[:1] != (1.0,) or sorted(set(levels)) != list(levels):
            raise schema.ConfigError(
                "config.data.levels must begin with 1 and grow, such as (1.0, 2.0, 4.0), got "
                f"{levels}"
            )
        missing = [level for level in levels[1:] if level not in scales]
        if missing:
            raise schema.ConfigError(
                "config.data.levels must be 1 or of those that records have, "
                f"config.data.records.scales={scales}, got {missing[0]:g}"
            )
        if 0 < self.crops.num_crops < len(levels):
            raise schema.ConfigError(
                f"config.data.crops.num_crops must be 0, or one or more of each of {len(levels)} "
                f"levels, got {self.crops.num_crops}"
            )

    @property
    def is_table(self) -> bool:
        """Whether a table names the slides, and may name files beside each."""
        return names_table(self.slides)

    def at(self, level: float) -> "DataConfig":
        """The same where patches are of a level's scale."""
        return dataclasses.replace(self, patch_mpp=self.patch_mpp * level)
