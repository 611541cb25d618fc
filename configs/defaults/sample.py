"""The section `sample`: how large images are generated."""

from ml_collections import ConfigDict

from configs.defaults import diffusion


def get_config() -> ConfigDict:
    c = ConfigDict()
    # The level of images, one of config.data.levels; 0 is the first.
    c.level = 0.0
    # dense: the reference is embedded at every window; interpolated: between the grid's cells;
    # cells: the cells that a window touches, of a denoiser that was trained so.
    c.conditioning = "dense"
    # slerp or lerp.
    c.interpolation = "slerp"
    # off: the denoiser, called twice where it is guided; guidance: its student (config.distill),
    # called once, in the solver's steps; strides: the student in `visits` long steps.
    c.student = "off"
    c.visits = 4
    c.guidance = diffusion.guidance(1.5)
    c.guidance.interval = (0.4, 1.0)
    c.solver = diffusion.solver(steps=12)
    c.windows = ConfigDict()
    # offset: windows side by side, the grid moves every step; overlap: all windows every step.
    c.windows.mode = "offset"
    # Of overlap: distance of windows, latent px.
    c.windows.stride = 16
    # Of offset: farthest move of the grid, latent px.
    c.windows.max_offset = 8
    # Of overlap: uniform or tapered.
    c.windows.weights = "uniform"
    # Of offset: a margin around the canvas, or wrap: its other side, for images that tile.
    c.windows.border = "margin"
    # Of offset: windows of this many last steps overlap by this share of a window or a little more,
    # so that none of their borders stays in the image.
    c.windows.last = ConfigDict()
    c.windows.last.steps = 3
    c.windows.last.overlap = 0.125
    # What denoiser, decoder and the encoder of a dense reference compute in: float32, bfloat16, or
    # auto: bfloat16 on GPU and TPU, float32 on CPU.
    c.compute_dtype = "auto"
    # What the canvas is held in between steps: float32 or bfloat16.
    c.canvas_dtype = "float32"
    # What devices share: the windows of a chunk, or the rows of the canvas where one is too small.
    c.split = "windows"
    # Windows evaluated together, whatever the image's size, so that one program serves all; 0 takes
    # as many as memory allows. 25 are those of 1024² at the published sizes.
    c.window_batch = 25
    c.decode = ConfigDict()
    # Tile and overlap of the decoder, latent px; tiles together, 0 being 16 on GPU and TPU and 4
    # on CPU.
    c.decode.tile = 64
    c.decode.overlap = 16
    c.decode.chunk = 0
    # ramp: linear over the overlap; paper: the published radial weights, uint8 by truncation.
    c.decode.blend = "ramp"
    c.output = ConfigDict()
    # Files of a large image: png, tif (pyramidal BigTIFF), ome.tif, cog.tif, dzi, ome.zarr and
    # dcm, which is a folder with a DICOM series.
    c.output.formats = ("png", "tif")
    # Version of OME-Zarr (NGFF): 0.5, in shards of 4096 × 512 px, or 0.4, which older readers know.
    c.output.ngff = "0.5"
    # JPEG quality inside them; from 90 on colour keeps its full resolution.
    c.output.quality = 90
    # The canvas of an image in progress is saved this often.
    c.checkpoint_minutes = 10.0
    # Only print what would be generated: windows, calls, FLOPs, memory, time.
    c.dry_run = False
    # Cells whose variations are shown.
    c.num_variations = 6
    return c
