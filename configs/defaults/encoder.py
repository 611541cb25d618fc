"""The sections `encoder` and `judge`, and `embeddings` that were computed elsewhere."""

from ml_collections import ConfigDict

from configs.defaults import training


def get_config() -> ConfigDict:
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
    c.train = training.get_config(steps=100_000, batch_size=1024, learning_rate=5e-4)
    c.train.optimizer.warmup_steps = 5000
    c.train.optimizer.decay = "cosine"
    c.train.optimizer.weight_decay = 0.04
    c.train.optimizer.clip_norm = 3.0
    # In DINO this average is the teacher.
    c.train.optimizer.ema_decay = 0.996
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
    return c
