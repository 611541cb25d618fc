"""The sections `prior`, `tokens` and `imagine`: grids of embeddings, the tokens of their cells, and
images of them."""

from ml_collections import ConfigDict

from configs.defaults import diffusion, training


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.grids = ConfigDict()
    # Cells on the side of a grid; 1 learns embeddings one by one.
    c.grids.side = 4
    # Cells on the side of the square that a condition describes: a grid lies anywhere in it, so
    # that larger images can be sampled as a whole.
    c.grids.max_cells = 8
    c.grids.count = 1_000_000
    # Held out, to judge by.
    c.grids.count_test = 2048
    c.conditions = ConfigDict()
    # Labels from pixels: none, stain (nuclei, stroma, empty), or landcover (water, vegetation,
    # bare, by the fourth band of a GeoTIFF at its own resolution); or annotations, the classes of
    # polygons that data.annotations.classes names.
    c.conditions.measure = "none"
    # CSV files with a column `case`: `label` (several rows a case); numbers, one column each;
    # `caption`. Captions may be `measured`: worded from what is measured; or `images`: regions as a
    # CLIP sees them, so that texts are understood without any.
    c.conditions.labels = ""
    c.conditions.numbers = ""
    c.conditions.captions = ""
    # Folder, or hf:// address, of a BERT as transformers save it, such as all-MiniLM-L6-v2 (of a
    # CLIP for images), and how many phrases of a text (up to a comma or full stop) are read; a CLIP
    # reads it whole.
    c.conditions.text_encoder = ""
    c.conditions.text_phrases = 8
    c.network = ConfigDict()
    # S is 384, 12, 6; B 768, 12, 12; L 1024, 24, 16.
    c.network.width = 384
    c.network.depth = 12
    c.network.num_heads = 6
    c.drop = ConfigDict()
    # How often training says nothing, and how often it leaves out each kind of condition (but one)
    # and each phrase of a text (but one).
    c.drop.all = 0.1
    c.drop.kind = 0.1
    c.drop.phrase = 0.2
    # Deviation of noise on the vectors of phrases, whose entries vary by 1.
    c.drop.text_noise = 0.3
    c.schedule = diffusion.schedule("cosine")
    c.loss = ConfigDict()
    c.loss.prediction = "v"
    c.loss.min_snr_gamma = 0.0
    c.solver = diffusion.solver(steps=50)
    c.solver.t_start = 990
    c.guidance = diffusion.guidance(2.0)
    c.train = training.get_config(steps=100_000, batch_size=256, learning_rate=1e-4)
    return c


def tokens() -> ConfigDict:
    c = ConfigDict()
    # Of config.embeddings.tokens_per_side² tokens a cell; without tokens nothing is trained.
    c.network = ConfigDict()
    c.network.width = 384
    c.network.depth = 12
    c.network.num_heads = 6
    # How often training leaves the embedding of the cell out, for guidance.
    c.cond_drop_rate = 0.1
    c.schedule = diffusion.schedule("cosine")
    c.loss = ConfigDict()
    c.loss.prediction = "v"
    c.loss.min_snr_gamma = 0.0
    c.solver = diffusion.solver(steps=25)
    c.solver.t_start = 990
    c.guidance = diffusion.guidance(1.0)
    # By how many tokens windows move at every step. With 0 each stands on a cell, whose tokens
    # follow its embedding most; with up to half of tokens_per_side they follow those beside it too,
    # more than real tokens do.
    c.max_offset = 0
    c.train = training.get_config(steps=100_000, batch_size=256, learning_rate=1e-4)
    return c


def imagine() -> ConfigDict:
    c = ConfigDict()
    # Held-out conditions from which images are generated, to measure what these show; 0 generates a
    # few and measures nothing.
    c.count = 32
    return c
