"""The sections of tools, which no step of a run reads; `bench`, `study` and `sweep` have own
files."""

from ml_collections import ConfigDict


def plan() -> ConfigDict:
    c = ConfigDict()
    # What hours and memory are planned for, kind:count: h100:1, h200:8, a100:4, rtx4090:1, v5e:16;
    # "" is the devices of this machine.
    c.devices = ""
    # Slides that are opened and whose tissue is looked for, to say how many records all will give;
    # 0 looks at every one.
    c.num_slides = 8
    return c


def variations() -> ConfigDict:
    c = ConfigDict()
    # Image of a patch or of a region that the tool regenerates; "": the first held-out one.
    c.image = ""
    # Its microns per pixel; 0 takes data.mpp, or else what the file says, or else that of patches.
    c.mpp = 0.0
    # The same in metres, of a scene; 0: mpp says it.
    c.metres = 0.0
    # Patches of it that are regenerated one by one, and how often each.
    c.num_patches = 6
    c.num_generated = 4
    # How often a region is regenerated as a whole.
    c.num_regions = 2
    return c


def compare() -> ConfigDict:
    c = ConfigDict()
    # Two folders of images, of any generator, that the tool compare evaluates; for JPEGs,
    # evaluate.jpeg_quality may say how good they are.
    c.real = ""
    c.generated = ""
    # Whether each was generated from the real image of its name, which the intervals take into
    # account.
    c.paired = False
    return c


def export() -> ConfigDict:
    c = ConfigDict()
    # Licence of the models, as written into every file that the tool export makes.
    c.licence = ""
    return c


def features() -> ConfigDict:
    c = ConfigDict()
    # Slides whose embeddings the tool writes as HDF5, as TRIDENT and CLAM have them: globs, files
    # or folders, drawn ones too; "": those of config.data.slides.
    c.slides = ""
    # Microns per pixel of the slides that are named here; 0 takes what their files say, or else
    # that of patches.
    c.mpp = 0.0
    # Least tissue of a patch, 0…1; 0 takes every patch of a slide.
    c.min_tissue = 0.5
    # Folder of the files, h5_files/SLIDE.h5; those that are there stay. "": bags in the work
    # directory.
    c.folder = ""
    # h5, and h5ad (AnnData, in h5ad_files/SLIDE.h5ad), which is made of it.
    c.formats = ("h5",)
    return c


def patch_images() -> ConfigDict:
    c = ConfigDict()
    # Folder that every record is written into, as train/SLIDE_x_y.png and test/…; images that are
    # there stay.
    c.folder = ""
    return c
