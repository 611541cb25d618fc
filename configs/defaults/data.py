"""The section `data`: slides or patches, what of them is kept, and how it is read."""

from ml_collections import ConfigDict

from configs.defaults import annotations, crops, reading, tissue


def get_config() -> ConfigDict:
    c = ConfigDict()
    # Slides: globs, files or folders, comma-separated, here or behind an address
    # (gs://bucket/*.svs; pip install gcsfs); "demo" is a CC0 slide, "blue_marble" the Earth.
    # TABLE.csv lists slides, and what is known of them (ssldiff_jax/data/INPUTS.md).
    # Patches already cut: folder:PATH of images; a .npy file of pixels or of names of image files;
    # tfds:NAME. Scenes by STAC: an item, a static collection or catalog, a list of items (.json,
    # .geojson). "" asks for them.
    c.slides = ""
    # Folder or address of the slides that a table names; "" is the table's own.
    c.folder = ""
    # Which asset of STAC items is read; "": visual, image or data, else the only GeoTIFF.
    c.asset = ""
    # Where what became of every slide is kept; many runs can share it. "" is workdir/archive.
    c.archive = ""
    c.engine = _engine()
    # Microns per pixel of the slides; 0 takes what the file says.
    c.mpp = 0.0
    # The same in metres, for scenes; 0: mpp says it. A run records it as mpp.
    c.metres = 0.0
    # Microns per pixel of the patches; 0.5 is 20×.
    c.patch_mpp = 0.5
    # The same in metres, for scenes; 0: patch_mpp says it. A run records it as patch_mpp.
    c.patch_metres = 0.0
    # Magnifications that one model learns, as multiples of patch_mpp: (1.0, 2.0, 4.0) of 20× are
    # 20×, 10× and 5×; all but the first must be of records.scales. Each is seen as often as the
    # others, however many records it has.
    c.levels = (1.0,)
    c.reading = reading.get_config()
    c.tissue = tissue.get_config()
    c.annotations = annotations.get_config()
    c.holdout = _holdout()
    c.records = _records()
    c.regions = _regions()
    c.crops = crops.get_config()
    c.loader = _loader()
    return c


def _engine() -> ConfigDict:
    c = ConfigDict()
    # processes on this machine, or beam on any cluster (pip install apache-beam).
    c.kind = "processes"
    # How many; 0: as many as cores.
    c.processes = 0
    # Beam's own options: ("--runner=DataflowRunner", "--project=…", "--temp_location=gs://…").
    c.beam = ()
    return c


def _holdout() -> ConfigDict:
    c = ConfigDict()
    # case: whole cases by a hash of their name, of two or more at least one; area: the lowest rows
    # of every slide; columns: its rightmost columns.
    c.by = "case"
    # How much is held out, of cases, of rows or of columns.
    c.fraction = 0.1
    # What in a file's name is its case. Names without a match are their own case, and refused where
    # they look like parts of one; '.+' says that each is one.
    c.case_regex = r"TCGA-\w{2}-\w{4}"
    return c


def _records() -> ConfigDict:
    c = ConfigDict()
    # Side of a stored square, px. Larger than a patch: crops fall at any pixel of it.
    c.record_px = 256
    # Distance of squares, px.
    c.stride_px = 256
    # Least tissue of a square, 0…1.
    c.min_tissue = 0.5
    # JPEG quality of stored squares, 4:4:4.
    c.jpeg_quality = 95
    # Further magnifications, as multiples of patch_mpp: (2.0, 4.0) of 20× adds 10× and 5×, in
    # splits of their own.
    c.scales = ()
    return c


def _regions() -> ConfigDict:
    c = ConfigDict()
    # Held-out reference regions: how many, and their cells.
    c.count = 2
    c.rows = 4
    c.cols = 4
    return c


def _loader() -> ConfigDict:
    c = ConfigDict()
    # Threads that decode, and examples they keep ready.
    c.num_threads = 8
    c.prefetch = 512
    return c
