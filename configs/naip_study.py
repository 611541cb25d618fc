"""Whether generated patches help on aerial scenes: land cover of patches, water in regions.

    python -m ssldiff_jax.main --config=configs/naip_study.py --workdir=runs/naip \
        --config.data.slides='/data/naip/*.tif' --config.stages=study

The work directory holds a run of configs/naip_demo.py with --config.data.patch_metres=5 (stages
patches … denoiser); what follows was measured with one embedding a cell and 1500 steps. Data: eight
NAIP scenes of one quarter quad in North Dakota, 2009 to 2020, 5 m per pixel, from the public
repository opengeos/data; the lower 30 % of each is held out.
Measured (2026-11-26; two shared cores of an Intel Xeon at 2 to 4 times their load, 17 min, 4 of
them generating 600 patches and 900 cells of regions; 1.4 GB): AUC of real, synthetic only, both,
and the gain of both over real with its interval (3 seeds, cases resampled):

    linear,     6 patches  .604  .588  .595  −.010 (−.061 … .044)
    linear,    60          .788  .775  .801   .013 (−.013 … .041)
    linear,   600          .901  .898  .902   .001 (−.010 … .010)
    ViT,       60          .754  .765  .784   .030 (.008 … .054)
    ResNet,   600          .817  .801  .816  −.002 (−.027 … .024)
    ABMIL,     20 regions  .820  .756  .816  −.004 (−.046 … .033)
    DSMIL,     10          .680  .624  .628  −.053 (−.091 … −.003)
    DSMIL,    100          .875  .877  .887   .011 (−.010 … .035)

Of 24 such gains one is clear of zero upwards and one downwards, as chance has it: on these eight
scenes of one place generated patches neither help nor harm.
"""

from configs import naip_demo


def get_config():
    """The run of configs/naip_demo.py on scenes of 5 m, and its study."""
    config = naip_demo.get_config()
    config.data.patch_metres = 5.0
    patches = config.study.patches
    patches.labels = "landcover"
    patches.count = 600
    patches.count_test = 0
    patches.num_generated = 1
    patches.network.fit.num_steps = 200
    patches.network.fit.learning_rate = 1e-3
    bags = config.study.bags
    bags.measure = "landcover"
    bags.shows = "water"
    bags.count_test = 200
    bags.models = ("abmil", "clam", "dsmil")
    return config
