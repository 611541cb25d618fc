"""The section `generate`: one large image."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
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
    # Files of figures of each cell, of an image that has a reference cell by cell: geojson, for
    # QuPath, and h5ad (AnnData), with its embeddings.
    c.cells = ("geojson",)
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
