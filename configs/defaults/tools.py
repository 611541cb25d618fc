"""The sections of tools, which no step of a run reads; `bench`, `study` and `sweep` have own
files."""

from ml_collections import ConfigDict


def generate() -> ConfigDict:
    c = ConfigDict()
    # Folder in generate/ of the image: every request has its own, and none is overwritten. ""
    # makes a name from the reference or the request, the size and the seed.
    c.name = ""
    # What the tool generates from: a slide or an image, embeddings (rows, columns, D) in a .npy
    # file, or those of a slide in an .h5 file; "": the first held-out reference.
    c.reference = ""
    # Its microns per pixel; 0 takes data.mpp, or else what the file says, or else that of patches.
    c.mpp = 0.0
    # The same in metres, of a scene; 0: mpp says it.
    c.metres = 0.0
    # (top, left, height, width): the part of the reference that is taken, in px at the scale of the
    # patches (of sample.level; of the first level where denoiser.conditioner.of is finest); () is
    # all of it.
    c.region = ()
    # The same as a viewer gives it, in px of level 0: "x,y,width,height", or "file.geojson#name",
    # the bounding box of a feature of that name, or of that class; "" is all.
    c.area = ""
    # (height, width) in px that the reference's cells are spread over, on its ground; () is its own
    # size.
    c.size = ()
    # 1 starts from noise; below 1, from the reference with the noise of that part of the timesteps.
    c.strength = 1.0
    # Where an image lies that no georeferenced reference places, in cog.tif and tif: a coordinate
    # system (EPSG:32633, WKT or a PROJ string), and …
    c.crs = ""
    # … (west, south, east, north) in its units, x before y; pixels must be those of the models
    # within 1 %. Or …
    c.bounds = ()
    # … (west, north) of the top left corner: pixels are as large as the models have them.
    c.origin = ()
    # Mask of what stays of the reference: white stays, black is generated; or polygons that stay,
    # "file.geojson" or "file.geojson#name", in px of level 0.
    c.mask = ""
    # Map that a ControlNet (config.denoiser.control) is shown, as large as the image: of cells,
    # white on black.
    c.control = ""
    # Pixels to generate beyond each side of the reference, which stays; whole cells.
    c.outpaint_px = 0
    c.prior = ConfigDict()
    # What the prior shall sample, of size `generate.size`: a text, parts of labels ("water=0.4"),
    # and numbers ("TP53=1.2"). What is not said is free; `anything` says nothing at all.
    c.prior.text = ""
    c.prior.labels = ()
    c.prior.numbers = ()
    c.prior.anything = False
    # Where generate.outpaint_px adds cells they repeat those at the edge, or are sampled by the
    # prior (prior).
    c.prior.beyond = "edge"
    # Scales the prior's noise; below 1 grids are more alike.
    c.prior.temperature = 1.0
    # A second reference of as many cells, and how far towards it embeddings go.
    c.blend_with = ""
    c.blend_amount = 0.5
    # Cells that are replaced: "row,col=row,col" by another, "row,col=file" by that of an image,
    # "row,col=prior" by what the prior puts there.
    c.edits = ()
    # An image that shows the same in k times fewer pixels each way (k = 2, 4, 8, …): what is
    # generated, shrunk k times, is that image.
    c.held_to = ""
    # Or it is generated first, from the same reference or request: by the models of another run (a
    # work directory or an export) of k times as many microns per pixel, …
    c.coarse = ConfigDict()
    c.coarse.models = ""
    # … and as their config.sample has it, with these changes, apart by spaces.
    c.coarse.sample = ""
    return c


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
    return c


def patch_images() -> ConfigDict:
    c = ConfigDict()
    # Folder that every record is written into, as train/SLIDE_x_y.png and test/…; images that are
    # there stay.
    c.folder = ""
    return c
