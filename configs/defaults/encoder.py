"""The sections `encoder` and `judge`, and `embeddings` that were computed elsewhere."""

from ml_collections import ConfigDict

from configs.defaults import training


def get_config() -> ConfigDict:
    """ViT-S/16 by DINO."""
    c = ConfigDict()
    # own: a ViT of the sizes below. Or a published one, whose sizes and input are known: uni2-h,
    # virchow2, h-optimus-1, dinov3-large … (the table in ssldiff_jax/weights/ENCODERS.md).
    c.name = "own"
    # Published weights to start from: a file (safetensors, .ckpt, .pth, shards), a folder, or the
    # address of one on the Hub, hf://org/name[@revision]; with train.num_steps=0 they are used as
    # they are.
    c.weights = ""
    c.model = _model()
    c.train = training.get_config(steps=100_000, batch_size=1024, learning_rate=5e-4)
    c.train.optimizer.warmup_steps = 5000
    c.train.optimizer.decay = "cosine"
    c.train.optimizer.weight_decay = 0.04
    c.train.optimizer.clip_norm = 3.0
    # In DINO this average is the teacher.
    c.train.optimizer.ema_decay = 0.996
    return c


def _model() -> ConfigDict:
    c = ConfigDict()
    c.vit = _vit()
    # dino, or infonce (what works in minutes).
    c.objective = "dino"
    c.infonce = _infonce()
    c.dino = _dino()
    c.jitter = _jitter()
    # Training crops are this much larger than the input, so that views can differ in place, px.
    c.shift_px = 0
    # Embeddings are measured from zero, or from their mean over training patches; white: from the
    # mean, and every direction with the same variance.
    c.origin = "zero"
    return c


def _vit() -> ConfigDict:
    c = ConfigDict()
    c.image_px = 256
    c.patch_px = 16
    c.width = 384
    c.depth = 12
    c.num_heads = 6
    # The embedding: class (token), mean (of patch tokens), or class_mean (both, side by side).
    c.pool = "class"
    c.variant = ConfigDict()
    # gelu or swiglu, and its hidden width (0: four times the width).
    c.variant.mlp = "gelu"
    c.variant.mlp_width = 0
    c.variant.num_registers = 0
    # Where learned scales of the residuals start; 0 has none.
    c.variant.layer_scale = 0.0
    # Position embeddings of all tokens but registers, registers too (registers), of patches only,
    # or rotary: none are learned, tokens are turned by where they lie.
    c.variant.positions = "all"
    # How they are fitted to other image sizes: timm, dino or hugging_face.
    c.variant.resize = "timm"
    c.variant.epsilon = 1e-6
    return c


def _infonce() -> ConfigDict:
    c = ConfigDict()
    c.temperature = 0.1
    c.head_width = 256
    # 0: no head, the embedding itself is compared.
    c.head_dim = 128
    return c


def _dino() -> ConfigDict:
    c = ConfigDict()
    c.teacher_temperature = 0.04
    c.student_temperature = 0.1
    c.center_momentum = 0.9
    c.num_prototypes = 65536
    c.head_width = 2048
    c.bottleneck = 256
    # Local views besides the two global ones, their side, and areas as fractions of the patch.
    c.num_local = 8
    c.local_px = 96
    c.global_area = (0.4, 1.0)
    c.local_area = (0.05, 0.4)
    return c


def _jitter() -> ConfigDict:
    c = ConfigDict()
    # Half-widths of uniform changes of brightness, contrast and each channel's gain.
    c.brightness = 0.2
    c.contrast = 0.2
    c.channel = 0.1
    return c


def embeddings() -> ConfigDict:
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
    # Tokens along a side of a patch that condition the denoiser: 1 is the embedding alone, as
    # published; 2 or 4 say besides where in the patch something lies (the encoder's patch tokens,
    # averaged to 2 × 2 or 4 × 4).
    c.tokens_per_side = 1
    # What a token is: of patches, the encoder's patch tokens in a part of the patch, averaged; of
    # squares, the embedding of that part, seen alone, as PixCell-1024 has them.
    c.tokens_of = "patches"
    return c
