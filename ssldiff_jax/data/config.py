"""The section `data` of a config: slides to records, records to patches."""

import dataclasses

from ssldiff_jax.core import schema
from ssldiff_jax.data import crops, loader, plan
from ssldiff_jax.data import engine as engine_lib
from ssldiff_jax.slides import reading, tissue


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Slides to records, records to patches."""

    slides: str
    mpp: float
    patch_mpp: float
    reading: reading.ReadingConfig
    tissue: tissue.TissueConfig
    holdout: plan.HoldoutConfig
    records: plan.RecordConfig
    regions: plan.RegionConfig
    crops: crops.CropConfig
    loader: loader.LoaderConfig
    archive: str = dataclasses.field(metadata={"digest": False})
    engine: engine_lib.EngineConfig = dataclasses.field(metadata={"digest": False})

    def __post_init__(self):
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
