"""The sections of the tools `bench` and `compile`: what is measured of models and machines."""

from ml_collections import ConfigDict


def bench() -> ConfigDict:
    c = ConfigDict()
    # Of network (one forward pass of the denoiser), decode (tiles of latents), weights (reading
    # them), archive (slides to records), input, images (large ones), training (steps, which take
    # the memory of a training) and evaluation (features of patches, distances with intervals).
    # Each step and each image has a process of its own; the first of every part come first.
    c.parts = ("network", "weights", "input", "images")
    # Whose steps part training measures, and with which batches; 0 is that of the config.
    c.train = ("denoiser",)
    c.batch_size = (0,)
    # Trace some of these steps, for TensorBoard or Perfetto.
    c.profile = False
    # Sides of the large images that are generated, px.
    c.sizes = (1024,)
    # Steps of the published algorithm's 50 that are done to compare at the first size, the rest
    # is multiplied; 0 does not compare.
    c.paper_steps = 2
    # Most seconds for one step, image or other part; 0 lets it take what it takes. One that comes
    # to its limit is ended, and a row says so.
    c.limit_s = 3600.0
    # Most seconds for all together; 0 sets no end. What is left of them goes to the parts that came
    # to their limit: what was compiled for them is kept in the workdir's folder `compiled`.
    c.total_s = 0.0
    return c


def compile() -> ConfigDict:
    c = ConfigDict()
    # Slices that the tool compiles for, generation:chips: v5e:2x2, v5e:16x16, v5p:2x4x4, h200:8 …
    c.topology = ("v5e:2x2",)
    # Training steps and the sampler's network.
    c.programs = ("denoiser", "autoencoder", "encoder", "prior", "sampler")
    # Global batches; 0 is that of the config.
    c.batch_size = (0,)
    # Numbers of devices, such as (1, 64, 4096), for which it is reckoned from counts how long steps
    # send and compute, each device with the examples of the compiled step.
    c.scaling = ()
    # Of the TPU compiler: O0 takes minutes for the published UNet, O1 and above an hour.
    c.optimization_level = "O0"
    return c
