"""The section of the tool `study`."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
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
    c.patches = _patches()
    c.bags = _bags()
    return c


def _patches() -> ConfigDict:
    c = ConfigDict()
    # What most of a patch's pixels are (stain, landcover), or the polygons over most of it
    # (annotations); the class recorded of a list; or clusters of what the judge sees in training
    # patches.
    c.labels = "stain"
    c.clusters = 5
    # Real patches, at most one of each record; 0 is all.
    c.count = 512
    c.count_test = 512
    # How often each is regenerated.
    c.num_generated = 2
    # linear (of embeddings), resnet, vit (of pixels).
    c.models = ("linear", "resnet", "vit")
    # Of linear: half of it times the squared weights, beside the mean cross entropy.
    c.l2 = 0.01
    c.network = ConfigDict()
    c.network.resnet_width = 16
    # A multiple of 32.
    c.network.vit_width = 64
    c.network.vit_depth = 2
    c.network.vit_patch_px = 8
    c.network.fit = _fit(steps=100, batch_size=32, learning_rate=2e-3)
    return c


def _bags() -> ConfigDict:
    c = ConfigDict()
    # regions, which show more of `shows` than the median one does; or slides, with labels.
    c.of = "regions"
    # stain (nuclei, stroma, empty), landcover (water, vegetation, bare), or annotations (one of
    # data.annotations.classes, or unmarked).
    c.measure = "stain"
    c.shows = "nuclei"
    # CSV file with columns case (or slide) and label, of slides.
    c.labels = ""
    # Cells on the side of a region; most patches of a slide.
    c.side = 3
    c.cells = 1024
    # Bags; of slides 0 is all.
    c.count = 100
    c.count_test = 100
    # How often each bag is regenerated.
    c.num_generated = 1
    # mean (of embeddings, linear), abmil, clam (CLAM-SB), dsmil.
    c.models = ("mean", "abmil", "clam", "dsmil")
    c.network = ConfigDict()
    # Published are 512, 256, 0.25, 8 and 0.7.
    c.network.width = 64
    c.network.hidden = 32
    c.network.dropout = 0.25
    # Of clam: how many instances are clustered on either side, and the weight of the bag's loss.
    c.network.clam_instances = 4
    c.network.clam_bag_weight = 0.7
    c.network.fit = _fit(steps=200, batch_size=16, learning_rate=1e-3)
    return c


def _fit(*, steps: int, batch_size: int, learning_rate: float) -> ConfigDict:
    c = ConfigDict()
    # The same number, however many examples there are.
    c.num_steps = steps
    c.batch_size = batch_size
    c.learning_rate = learning_rate
    c.weight_decay = 0.01
    return c
