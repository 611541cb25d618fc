"""Every key, once. Patches, autoencoder and denoiser have the published sizes of TCGA-BRCA 20×.

Encoder, prior and judge are trained from scratch; large images are sampled in fewer calls than
published (`sample_as_published` has that way).

Other configs start from `get_config()` and change what differs. Any key can be set on the command
line: --config.denoiser.train.batch_size=64
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The config tree, locked: a misspelt key is an error."""
    config = ConfigDict()
    # Root of every random stream.
    config.seed = 0
    # Comma-separated, or all: patches, encoder, embeddings, autoencoder, latents, denoiser, sample,
    # judge, evaluate, grids, prior, imagine, report. The tools generate, sweep, variations, watch,
    # compare, study, export, verify, bench and compile run when named.
    config.stages = "all"
    # Stages to make anew although they are done; what they wrote stays until the new is whole.
    config.force = ""
    # Work directory of another run of the same sizes, whose models are used instead of training
    # own ones: data that they never saw, judged by the same figures.
    config.models = ""
    config.runtime = _runtime()
    config.mesh = _mesh()
    config.data = _data()
    config.encoder = encoder()
    config.embeddings = _embeddings()
    config.autoencoder = _autoencoder()
    config.denoiser = _denoiser()
    config.prior = _prior()
    config.sample = _sample()
    config.imagine = _imagine()
    config.generate = _generate()
    config.sweep = _sweep()
    config.bench = _bench()
    config.compile = _compile()
    config.variations = _variations()
    config.study = _study()
    config.export = ConfigDict()
    # Licence of the models, as written into every file that the tool export makes.
    config.export.licence = ""
    # An encoder that only the evaluation sees: same recipe, other sizes.
    config.judge = encoder()
    config.evaluate = _evaluate()
    config.compare = ConfigDict()
    # Two folders of images, whoever drew them, that the tool compare judges; of JPEGs,
    # evaluate.jpeg_quality may say how good they are.
    config.compare.real = ""
    config.compare.generated = ""
    # Whether each was drawn from the real one of its name: intervals know it.
    config.compare.paired = False
    config.report = ConfigDict()
    # Work directories of other runs to show beside this one.
    config.report.compare = ()
    config.lock()
    return config


def _runtime() -> ConfigDict:
    c = ConfigDict()
    # Devices to make of a CPU, to try a mesh without one; 0 leaves it to jax, which makes one.
    c.cpu_devices = 0
    # Keep memory that a step frees for the next one (glibc): steps of small models on CPU take a
    # third less. Leave off where many threads allocate.
    c.keep_freed_memory = False
    # Folder of compiled programs that later runs read; "" keeps none.
    c.compilation_cache = "~/.cache/ssldiff_jax"
    # auto: one process of several, found from the environment (TPU pod, GKE, SLURM, Open MPI);
    # given: as JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say; off: alone.
    c.distributed = "off"
    # Where checkpoints of training lie: gs://bucket/run (pip install gcsfs), or any folder; "" is
    # the workdir.
    c.checkpoints = ""
    return c


def _mesh() -> ConfigDict:
    c = ConfigDict()
    # Devices along each axis; one may be -1 for all that are left.
    c.data = -1
    # State is split over fsdp, parameters are gathered once a step; 0 takes up to 8 devices.
    c.fsdp = 0
    c.model = 1
    # "regex = dimension:axis": which dimension of which parameters is split over which axis.
    c.rules = ("kernel$ = -1:fsdp",)
    return c


def _data() -> ConfigDict:
    c = ConfigDict()
    # Slides: globs, files or folders, comma-separated, here or behind an address
    # (gs://bucket/*.svs; pip install gcsfs); "demo" is a CC0 slide, "blue_marble" the Earth.
    # Patches already cut: folder:PATH of images; a .npy file of pixels or of names of image files;
    # tfds:NAME. "" asks for them.
    c.slides = ""
    # Where what became of every slide is kept; many runs can share it. "" is workdir/archive.
    c.archive = ""

    c.engine = ConfigDict()
    # processes on this machine, or beam on any cluster (pip install apache-beam).
    c.engine.kind = "processes"
    # How many; 0: as many as cores.
    c.engine.processes = 0
    # Beam's own options: ("--runner=DataflowRunner", "--project=…", "--temp_location=gs://…").
    c.engine.beam = ()

    # Microns per pixel of the slides; 0 takes what the file says.
    c.mpp = 0.0
    # Microns per pixel of the patches; 0.5 is 20×.
    c.patch_mpp = 0.5

    c.reading = ConfigDict()
    # Bands of a raster that are red, green and blue, or the one that is all; () is those called so,
    # else the first three.
    c.reading.bands = ()
    # Values of a raster that become black and white; both 0 takes 8 bits as they are.
    c.reading.low = 0.0
    c.reading.high = 0.0
    # stored, or srgb: by the file's ICC profile.
    c.reading.colour = "stored"

    c.tissue = ConfigDict()
    # Microns per pixel of the thumbnail the mask is made on.
    c.tissue.mpp = 8.0
    # Otsu's threshold on saturation is kept between these (0…1).
    c.tissue.min_saturation = 0.05
    c.tissue.max_saturation = 0.10
    # Darker than this (0…1) is black ink or scanner border; 0 keeps them.
    c.tissue.min_luminance = 0.10
    # Brighter than this (0…1) is cloud, or no data, which is white; 1 keeps it.
    c.tissue.max_luminance = 1.0
    # Pen: absorbs red this much more, over the mean, than H&E can; 0 keeps it, as other stains and
    # rasters must.
    c.tissue.pen_chroma = 0.3
    # Folds: this many times as dense as is typical of tissue of their colour; 0 keeps them.
    c.tissue.fold_density = 2.0
    # Out of focus: detail as wide as after a Gaussian of this sigma, µm (2 is safe); 0 keeps it and
    # saves reading all tissue at blur_mpp.
    c.tissue.blur_um = 0.0
    # Microns per pixel that sharpness is judged at.
    c.tissue.blur_mpp = 1.0
    # Specks and holes below this radius vanish, µm.
    c.tissue.smooth_radius_um = 16.0

    c.holdout = ConfigDict()
    # case: whole cases by a hash of their name, of two or more at least one; area: the lowest rows
    # of every slide.
    c.holdout.by = "case"
    # How much is held out, of cases or of rows.
    c.holdout.fraction = 0.1
    # What in a file's name is its case. Names without a match are their own case, and refused where
    # they look like parts of one; '.+' says that each is one.
    c.holdout.case_regex = r"TCGA-\w{2}-\w{4}"

    c.records = ConfigDict()
    # Side of a stored square, px. Larger than a patch: crops fall at any pixel of it.
    c.records.record_px = 256
    # Distance of squares, px.
    c.records.stride_px = 256
    # Least tissue of a square, 0…1.
    c.records.min_tissue = 0.5
    # JPEG quality of stored squares, 4:4:4.
    c.records.jpeg_quality = 95
    # Further magnifications, as multiples of patch_mpp: (2.0, 4.0) of 20× adds 10× and 5×, in
    # splits of their own.
    c.records.scales = ()

    c.regions = ConfigDict()
    # Held-out reference regions: how many, and their cells.
    c.regions.count = 2
    c.regions.rows = 4
    c.regions.cols = 4

    c.crops = ConfigDict()
    # Side of a patch: one embedding, one window.
    c.crops.patch_px = 256
    # Patches to cache embeddings and latents of; 0: one for each record.
    c.crops.num_crops = 0
    # Pixels around a patch that the autoencoder sees and its latents drop.
    c.crops.context_px = 0
    # One of eight orientations for each crop.
    c.crops.dihedral = False
    # patch: each is led by its own embedding; cells: by those of the 2×2 cells that it touches of
    # a lattice laid anywhere over its record, so that large images need no embedding in between.
    c.crops.condition_on = "patch"

    c.loader = ConfigDict()
    # Threads that decode, and examples they keep ready.
    c.loader.num_threads = 8
    c.loader.prefetch = 512
    return c


def _train(*, steps: int, batch_size: int, learning_rate: float) -> ConfigDict:
    c = ConfigDict()
    # More than a finished training has done let it go on from its last checkpoint.
    c.num_steps = steps
    # Over all devices and hosts.
    c.batch_size = batch_size
    c.optimizer = ConfigDict()
    # adamw, adafactor (moments of rows and columns: half the memory), or muon (matrices by
    # orthogonalised momentum, vectors by AdamW).
    c.optimizer.name = "adamw"
    c.optimizer.learning_rate = learning_rate
    c.optimizer.warmup_steps = 1000
    # constant, or cosine to zero over num_steps.
    c.optimizer.decay = "constant"
    c.optimizer.weight_decay = 0.01
    # "regex = rate, decay": what multiplies the learning rate and the decay of some parameters.
    # Biases and norms never decay.
    c.optimizer.groups = ()
    c.optimizer.b2 = 0.999
    # Gradients of a larger global norm are scaled down to it.
    c.optimizer.clip_norm = 1.0
    # Averaged weights are what later stages read.
    c.optimizer.ema_decay = 0.9999
    c.compute = ConfigDict()
    # float32 or bfloat16, inside the model; parameters, gradients' sums and averages are float32.
    c.compute.dtype = "bfloat16"
    # What is kept for the gradient: none recomputes nothing; products keeps the outputs of blocks
    # and of matrix products, blocks those of blocks only.
    c.compute.remat = "none"
    # Parts of a batch that are computed one after the other.
    c.compute.accumulate = 1
    c.log_every = 100
    c.checkpoint_every = 5000
    # Non-finite updates are skipped; more than this many stop the run.
    c.max_skipped = 10
    # jit over the mesh, or pmap over local devices.
    c.method = "jit"
    # Steps to trace, after the tenth, into the stage's folder profile/ (TensorBoard, Perfetto).
    c.profile_steps = 0
    return c


def encoder() -> ConfigDict:
    """ViT-S/16 by DINO."""
    c = ConfigDict()
    # own: a ViT of the sizes below. Or a published one, whose sizes and input are known: hipt,
    # dino-vits16, dino-vitb16, phikon, phikon-v2, uni, uni2-h, dinov2-small … dinov2-giant.
    c.name = "own"
    # File of published weights (safetensors, .ckpt, .pth, shards) to start from; with
    # train.num_steps=0 they are used as they are.
    c.weights = ""
    c.model = ConfigDict()
    m = c.model
    m.vit = ConfigDict()
    m.vit.image_px = 256
    m.vit.patch_px = 16
    m.vit.width = 384
    m.vit.depth = 12
    m.vit.num_heads = 6
    # The embedding: class (token) or mean (of patch tokens).
    m.vit.pool = "class"
    m.vit.variant = ConfigDict()
    # gelu or swiglu, and its hidden width (0: four times the width).
    m.vit.variant.mlp = "gelu"
    m.vit.variant.mlp_width = 0
    m.vit.variant.num_registers = 0
    # Where learned scales of the residuals start; 0 has none.
    m.vit.variant.layer_scale = 0.0
    # Position embeddings of all tokens, or of patches only.
    m.vit.variant.positions = "all"
    # How they are fitted to other image sizes: timm, dino or hugging_face.
    m.vit.variant.resize = "timm"
    m.vit.variant.epsilon = 1e-6
    # dino, or infonce (what works in minutes).
    m.objective = "dino"
    m.infonce = ConfigDict()
    m.infonce.temperature = 0.1
    m.infonce.head_width = 256
    # 0: no head, the embedding itself is compared.
    m.infonce.head_dim = 128
    m.dino = ConfigDict()
    m.dino.teacher_temperature = 0.04
    m.dino.student_temperature = 0.1
    m.dino.center_momentum = 0.9
    m.dino.num_prototypes = 65536
    m.dino.head_width = 2048
    m.dino.bottleneck = 256
    # Local views besides the two global ones, their side, and areas as fractions of the patch.
    m.dino.num_local = 8
    m.dino.local_px = 96
    m.dino.global_area = (0.4, 1.0)
    m.dino.local_area = (0.05, 0.4)
    m.jitter = ConfigDict()
    # Half-widths of uniform changes of brightness, contrast and each channel's gain.
    m.jitter.brightness = 0.2
    m.jitter.contrast = 0.2
    m.jitter.channel = 0.1
    # Training crops are this much larger than the input, so that views can differ in place, px.
    m.shift_px = 0
    # Embeddings are measured from zero, or from their mean over training patches.
    m.origin = "zero"
    c.train = _train(steps=100_000, batch_size=1024, learning_rate=5e-4)
    c.train.optimizer.warmup_steps = 5000
    c.train.optimizer.decay = "cosine"
    c.train.optimizer.weight_decay = 0.04
    c.train.optimizer.clip_norm = 3.0
    # In DINO this average is the teacher.
    c.train.optimizer.ema_decay = 0.996
    return c


def _embeddings() -> ConfigDict:
    c = ConfigDict()
    # Computed elsewhere, by any encoder (.h5, .npy, .pt): a folder with a file for each slide, or
    # a file with a row for each patch of a list. "" computes them with the encoder above.
    c.source = ""
    # The array's name, where a file has several: features, feat_20x …
    c.dataset = ""
    # Folder of .h5 files with the places of patches (CLAM's patches/), where `source` has none.
    c.corners = ""
    # pixels: refused where another order of rows would agree better with the patches' pixels;
    # none: trusted.
    c.check = "pixels"
    return c


def _autoencoder() -> ConfigDict:
    c = ConfigDict()
    c.model = ConfigDict()
    # kl or vq: the blocks of latent diffusion; light: a pixel-unshuffle stem, trains on two cores.
    c.model.kind = "vq"
    # Of kl and vq.
    c.model.conv = ConfigDict()
    c.model.conv.latent_channels = 3
    c.model.conv.channels = 128
    c.model.conv.channel_mult = (1, 2, 4)
    c.model.conv.num_res_blocks = 2
    # 1x1: a convolution on either side of the latents; none: as in SD3.
    c.model.conv.latent_conv = "1x1"
    c.model.vq = ConfigDict()
    c.model.vq.num_codes = 8192
    # Weight of pulling latents to codes.
    c.model.vq.commitment = 0.25
    # Codes used less than this part of their even share, averaged over steps with this decay,
    # start again at a latent of the batch; 0 lets them lie.
    c.model.vq.usage_decay = 0.99
    c.model.vq.dead_below = 0.03
    c.model.light = ConfigDict()
    c.model.light.latent_channels = 4
    c.model.light.channels = 64
    c.model.light.num_blocks = 3
    c.model.light.downsample_factor = 4
    c.loss = ConfigDict()
    # Beside the mean absolute error of pixels, weight 1: gradients at three scales.
    c.loss.gradient_weight = 0.0
    # Features: the encoder's patch tokens, or lpips with "vgg16 file,linear layers file".
    c.loss.perceptual = "encoder"
    c.loss.perceptual_weight = 1.0
    c.loss.lpips_weights = ""
    # KL from a unit Gaussian (kl, light); codes and latents drawn together (vq).
    c.loss.kl_weight = 1e-6
    c.loss.codebook_weight = 1.0
    c.loss.adversarial = ConfigDict()
    # Patch discriminator; 0 trains without one. It counts from start_step on.
    c.loss.adversarial.weight = 0.75
    c.loss.adversarial.start_step = 50_000
    c.loss.adversarial.channels = 64
    c.loss.adversarial.num_layers = 3
    # File of published weights to start from: latent diffusion's names, or diffusers'.
    c.weights = ""
    # measured: latents are brought to unit variance; none: they stay as the encoder gives them,
    # which is what published denoisers were trained on.
    c.latent_scaling = "measured"
    c.train = _train(steps=200_000, batch_size=64, learning_rate=1e-4)
    c.train.optimizer.ema_decay = 0.999
    return c


def _schedule(name: str) -> ConfigDict:
    c = ConfigDict()
    # scaled_linear as published, or cosine, which has no betas to set.
    c.name = name
    c.num_timesteps = 1000
    c.beta_start = 0.0015
    c.beta_end = 0.0195
    return c


def _denoiser() -> ConfigDict:
    c = ConfigDict()
    c.unet = ConfigDict()
    c.unet.latent_channels = 3
    c.unet.channels = 192
    c.unet.channel_mult = (1, 2, 3, 5)
    c.unet.num_res_blocks = 2
    # Levels with a transformer, 0 the finest.
    c.unet.attention_levels = (1, 2, 3)
    c.unet.num_heads = 1
    c.unet.context_dim = 512
    # cross_attention as published, or scale_shift in every residual block.
    c.unet.conditioning = "cross_attention"
    # one: embeddings have length 1 as published; root_dim: length √D.
    c.embedding_length = "one"
    # Dimension of an embedding of the region around a patch, a second token; 0 has none.
    c.region_dim = 0
    # File of published weights to start from: UNet and conditioner in latent diffusion's names.
    c.weights = ""
    c.schedule = _schedule("scaled_linear")
    c.loss = ConfigDict()
    # eps, x0 or v.
    c.loss.prediction = "eps"
    # How often the null embedding takes the embedding's place.
    c.loss.cond_drop_rate = 0.1
    # Caps the weight of low-noise timesteps; 0 weighs all alike.
    c.loss.min_snr_gamma = 0.0
    c.train = _train(steps=150_000, batch_size=600, learning_rate=1e-4)
    return c


def _guidance(scale: float) -> ConfigDict:
    c = ConfigDict()
    # uncond + s·(cond − uncond); 1 is none.
    c.scale = scale
    # The part of the timesteps that is guided, 0 the least noise, 1 the most.
    c.interval = (0.0, 1.0)
    # How far x0_hat gets back the spread it has without guidance, 0…1.
    c.rescale = 0.0
    return c


def _solver(*, steps: int) -> ConfigDict:
    c = ConfigDict()
    # dpmpp_2m, ddim, ddpm, plms; paper: DDIM as the published code for large images has it.
    c.name = "dpmpp_2m"
    c.num_solver_steps = steps
    # Of ddim: 0 deterministic … 1 ddpm.
    c.eta = 0.0
    c.t_start = 999
    # trailing: begins at t_start; leading: ends at 1, as latent diffusion spaces timesteps, of
    # which it has one fewer than trailing at most.
    c.spacing = "trailing"
    return c


def _prior() -> ConfigDict:
    c = ConfigDict()
    c.grids = ConfigDict()
    # Cells on the side of a grid; 1 learns embeddings one by one.
    c.grids.side = 4
    # Cells on the side of the square that a condition describes: a grid lies anywhere in it, so
    # that larger images can be asked for as a whole.
    c.grids.max_cells = 8
    c.grids.count = 1_000_000
    # Held out, to judge by.
    c.grids.count_test = 2048
    c.conditions = ConfigDict()
    # Labels from pixels: none, stain (nuclei, stroma, empty), or landcover (water, vegetation,
    # bare, by the fourth band of a GeoTIFF at its own resolution).
    c.conditions.measure = "none"
    # CSV files with a column `case`: `label` (several rows a case); numbers, one column each;
    # `caption`. Captions may be `measured`: worded from what is measured; or `images`: regions as a
    # CLIP sees them, so that texts are understood without any.
    c.conditions.labels = ""
    c.conditions.numbers = ""
    c.conditions.captions = ""
    # Folder of a BERT as transformers save it, such as all-MiniLM-L6-v2 (of a CLIP for images), and
    # how many phrases of a text (up to a comma or full stop) are read; a CLIP reads it whole.
    c.conditions.text_encoder = ""
    c.conditions.text_phrases = 8
    c.network = ConfigDict()
    # S is 384, 12, 6; B 768, 12, 12; L 1024, 24, 16.
    c.network.width = 384
    c.network.depth = 12
    c.network.num_heads = 6
    c.drop = ConfigDict()
    # How often training says nothing, and how often it leaves out each kind of condition (but one).
    c.drop.all = 0.1
    c.drop.kind = 0.1
    # Deviation of noise on the vectors of phrases, whose entries vary by 1.
    c.drop.text_noise = 0.3
    c.schedule = _schedule("cosine")
    c.loss = ConfigDict()
    c.loss.prediction = "v"
    c.loss.min_snr_gamma = 0.0
    c.solver = _solver(steps=50)
    c.solver.t_start = 990
    c.guidance = _guidance(2.0)
    c.train = _train(steps=100_000, batch_size=256, learning_rate=1e-4)
    return c


def _sample() -> ConfigDict:
    c = ConfigDict()
    # dense: the reference is embedded at every window; interpolated: between the grid's cells;
    # cells: the cells that a window touches, of a denoiser that was trained so.
    c.conditioning = "dense"
    # slerp or lerp.
    c.interpolation = "slerp"
    c.guidance = _guidance(1.5)
    c.guidance.interval = (0.4, 1.0)
    c.solver = _solver(steps=12)
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
    # What the network computes in, and what the canvas is held in between steps: float32 or
    # bfloat16.
    c.compute_dtype = "float32"
    c.canvas_dtype = "float32"
    # What devices share: the windows of a chunk, or the rows of the canvas where one is too small.
    c.split = "windows"
    # Windows evaluated together; 0 takes as many as memory allows.
    c.window_batch = 32
    c.decode = ConfigDict()
    # Tile and overlap of the decoder, latent px, and tiles together.
    c.decode.tile = 64
    c.decode.overlap = 16
    c.decode.chunk = 4
    # ramp: linear over the overlap; paper: the published radial weights, uint8 by truncation.
    c.decode.blend = "ramp"
    c.output = ConfigDict()
    # Files of a large image: png, tif (pyramidal BigTIFF), ome.tif, cog.tif, dzi.
    c.output.formats = ("png", "tif")
    # JPEG quality inside them; from 90 on colour keeps its full resolution.
    c.output.quality = 90
    # A canvas that is being drawn is saved this often.
    c.checkpoint_minutes = 10.0
    # Only say what would be drawn: windows, calls, FLOPs, memory, time.
    c.dry_run = False
    # Cells whose variations are shown.
    c.num_variations = 6
    return c


def _imagine() -> ConfigDict:
    c = ConfigDict()
    # Held-out conditions that are drawn as images, to measure what these show; 0 draws a few and
    # measures nothing.
    c.count = 32
    return c


def _generate() -> ConfigDict:
    c = ConfigDict()
    # Folder in generate/ of the image: every request has its own, and none is overwritten. ""
    # makes a name of the reference or of what is asked for, the size and the seed.
    c.name = ""
    # What the tool draws from: a slide or an image, or embeddings (rows, columns, D) in a .npy
    # file; "": the first held-out reference.
    c.reference = ""
    # Its microns per pixel; 0 takes data.mpp, or else what the file says, or else that of patches.
    c.mpp = 0.0
    # (height, width) in px that the reference's cells are spread over, on its ground; () is its own
    # size.
    c.size = ()
    # 1 draws from noise; below, from the reference at that part of the noise.
    c.strength = 1.0
    # Image of what stays of the reference: white stays, black is drawn.
    c.mask = ""
    # Pixels to draw beyond each side of the reference, which stays; whole cells.
    c.outpaint_px = 0
    c.prior = ConfigDict()
    # What the prior shall draw, of size `generate.size`: a text, parts of labels ("water=0.4"), and
    # numbers ("TP53=1.2"). What is not said is free; `anything` says nothing at all.
    c.prior.text = ""
    c.prior.labels = ()
    c.prior.numbers = ()
    c.prior.anything = False
    # Where generate.outpaint_px adds cells they are those at the edge again, or drawn by the prior
    # (prior).
    c.prior.beyond = "edge"
    # Scales the prior's noise; below 1 grids are more alike.
    c.prior.temperature = 1.0
    # A second reference of as many cells, and how far towards it embeddings go.
    c.blend_with = ""
    c.blend_amount = 0.5
    # Cells that are replaced: "row,col=row,col" by another, "row,col=file" by that of an image,
    # "row,col=prior" by what the prior puts there.
    c.edits = ()
    return c


def _sweep() -> ConfigDict:
    c = ConfigDict()
    # Ways of drawing to compare: changes of `sample`, apart by spaces; w/8 is an eighth of a
    # window.
    offsets = ("windows.max_offset=0", "windows.max_offset=w/8", "windows.max_offset=w/2")
    told = ("conditioning=interpolated", "conditioning=dense", "conditioning=cells")
    small = "windows.max_offset=w/8"
    led = (
        "guidance.scale=1.0",
        "guidance.interval=(0.4,1.0)",
        "guidance.interval=(0.3,0.8)",
        "guidance.scale=2.0 guidance.rescale=0.7",
    )
    c.variants = (
        *(f"{offset} {how}" for how in told for offset in offsets),
        *(f"{small} {how} {guided}" for how in told for guided in led),
        *(f"{small} {how} solver.num_solver_steps={n}" for how in told for n in (20, 50)),
        "windows.mode=overlap windows.stride=w/2 conditioning=dense",
        "windows.mode=overlap windows.stride=w/4 conditioning=dense",
        "windows.mode=paper conditioning=interpolated guidance.scale=4.0 "
        "guidance.interval=(0.0,1.0) solver.name=paper solver.num_solver_steps=50 "
        "solver.t_start=999",
    )
    # How often each region is drawn.
    c.num_generated = 1
    return c


def _evaluate() -> ConfigDict:
    c = ConfigDict()
    # Held-out patches that are drawn again and compared with real ones; 0: large images alone.
    c.num_patches = 10_000
    # Training patches among which copies are looked for, at most; 0: those of every record. What
    # was copied from others is not found, so the part of records that was searched is told as
    # `power`. A million are as many JPEGs, a pass of the judge and 1.5 GB of features (of 384
    # numbers).
    c.num_training = 1_000_000
    # Of the files that features are taken of; 0 is PNG.
    c.jpeg_quality = 0
    # Networks besides the run's own: fid-inception=FILE, clip=FOLDER, or a published ViT=FILE.
    c.extractors = ()
    # Folder of statistics to compare with; "" is this run's held-out patches.
    c.reference = ""
    # What a confusion matrix is of: stain or landcover, measured in pixels; recorded, of lists of
    # patches with classes; "" makes none.
    c.classes = ""
    # class=words of a CLIP among the extractors; () takes means of real patches of each class.
    c.prompts = ()
    c.templates = ("a histopathology image of {}.", "a microscopic photo showing {}.")
    # Minutes that the tool watch waits for a checkpoint.
    c.patience = 60.0
    return c


def _bench() -> ConfigDict:
    c = ConfigDict()
    # Of network (one forward pass of the denoiser), weights (reading them), archive (slides to
    # records), input, images (large ones, drawn), training (steps, which take the memory of a
    # training) and evaluation (features of patches, distances with intervals).
    c.parts = ("network", "weights", "input", "images")
    # Whose steps part training measures, and with which batches; 0 is that of the config.
    c.train = ("denoiser",)
    c.batch_size = (0,)
    # Trace some of these steps, for TensorBoard or Perfetto.
    c.profile = False
    # Sides of the large images that are drawn, px.
    c.sizes = (1024,)
    # Steps of the published algorithm's 50 that are done to compare at the first size, the rest
    # is multiplied; 0 does not compare.
    c.paper_steps = 2
    return c


def _compile() -> ConfigDict:
    c = ConfigDict()
    # Slices that the tool compiles for, generation:chips: v5e:2x2, v5e:16x16, v5p:2x4x4, h200:8 …
    c.topology = ("v5e:2x2",)
    # Training steps and the sampler's network.
    c.programs = ("denoiser", "autoencoder", "encoder", "prior", "sampler")
    # Global batches; 0 is that of the config.
    c.batch_size = (0,)
    # Of the TPU compiler: O0 takes minutes for the published UNet, O1 and above an hour.
    c.optimization_level = "O0"
    return c


def _variations() -> ConfigDict:
    c = ConfigDict()
    # Image of a patch or of a region that the tool draws again; "": the first held-out one.
    c.image = ""
    # Its microns per pixel; 0 takes data.mpp, or else what the file says, or else that of patches.
    c.mpp = 0.0
    # Patches of it that are drawn alone, and how often each.
    c.num_patches = 6
    c.num_generated = 4
    # How often a region is drawn as a whole.
    c.num_regions = 2
    return c


def _study() -> ConfigDict:
    c = ConfigDict()
    # What is classified: patches, bags of embeddings.
    c.tasks = ("patches", "bags")
    # Parts of the real training examples whose labels are known, 0…1.
    c.fractions = (0.01, 0.1, 0.2, 1.0)
    # Repetitions, each of another subset and other random weights.
    c.seeds = 3
    # Samples of the bootstrap over test cases and seeds, and the part of them in an interval.
    c.resamples = 1000
    c.level = 0.95
    c.patches = ConfigDict()
    p = c.patches
    # What most of a patch's pixels are (stain, landcover); the class recorded of a list; or
    # clusters of what the judge sees in training patches.
    p.labels = "stain"
    p.clusters = 5
    # Real patches, at most one of each record; 0 is all.
    p.count = 512
    p.count_test = 512
    # How often each is drawn again.
    p.num_generated = 2
    # linear (of embeddings), resnet, vit (of pixels).
    p.models = ("linear", "resnet", "vit")
    # Of linear: half of it times the squared weights, beside the mean cross entropy.
    p.l2 = 0.01
    p.network = ConfigDict()
    p.network.resnet_width = 16
    # A multiple of 32.
    p.network.vit_width = 64
    p.network.vit_depth = 2
    p.network.vit_patch_px = 8
    p.network.fit = _fit(steps=100, batch_size=32, learning_rate=2e-3)
    c.bags = ConfigDict()
    b = c.bags
    # regions, which show more of `shows` than the median one does; or slides, with labels.
    b.of = "regions"
    # stain (nuclei, stroma, empty) or landcover (water, vegetation, bare).
    b.measure = "stain"
    b.shows = "nuclei"
    # CSV file with columns case and label, of slides.
    b.labels = ""
    # Cells on the side of a region; most patches of a slide.
    b.side = 3
    b.cells = 1024
    # Bags; of slides 0 is all.
    b.count = 100
    b.count_test = 100
    # How often each bag is drawn again.
    b.num_generated = 1
    # mean (of embeddings, linear), abmil, clam (CLAM-SB), dsmil.
    b.models = ("mean", "abmil", "clam", "dsmil")
    b.network = ConfigDict()
    # Published are 512, 256, 0.25, 8 and 0.7.
    b.network.width = 64
    b.network.hidden = 32
    b.network.dropout = 0.25
    # Of clam: how many instances are clustered on either side, and the weight of the bag's loss.
    b.network.clam_instances = 4
    b.network.clam_bag_weight = 0.7
    b.network.fit = _fit(steps=200, batch_size=16, learning_rate=1e-3)
    return c


def _fit(*, steps: int, batch_size: int, learning_rate: float) -> ConfigDict:
    c = ConfigDict()
    # The same number, however many examples there are.
    c.num_steps = steps
    c.batch_size = batch_size
    c.learning_rate = learning_rate
    c.weight_decay = 0.01
    return c


def sample_as_published(config: ConfigDict) -> None:
    """Large images as the published code draws them, errors included.

    169 overlapping windows at each of 50 steps, the network told t + 1, noise of single
    timesteps over strides of 20, guidance far beyond its best, decoded window by window.
    """
    c = config.sample
    c.conditioning = "interpolated"
    c.interpolation = "slerp"
    c.guidance.scale = 4.0
    c.guidance.interval = (0.0, 1.0)
    c.solver.name = "paper"
    c.solver.num_solver_steps = 50
    c.solver.t_start = 999
    c.windows.mode = "paper"
    c.decode.tile = 64
    c.decode.overlap = 48
    c.decode.blend = "paper"
    config.autoencoder.latent_scaling = "none"


def small_encoder(section: ConfigDict, *, px: int, num_steps: int, width: int = 384) -> None:
    """A ViT of patches of 8 px by DINO for images of `px`, and a training that one GPU can do."""
    section.model.vit.width = width
    section.model.vit.num_heads = width // 64
    section.model.vit.image_px = px
    section.model.vit.patch_px = 8
    section.model.dino.num_prototypes = 8192
    section.model.dino.local_px = px // 2
    section.train.num_steps = num_steps
    section.train.batch_size = 256
    section.train.optimizer.warmup_steps = 1000
