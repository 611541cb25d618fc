"""Slides of TCGA-BRCA as bags: subtypes, or homologous recombination deficiency (HRD).

    python -m ssldiff_jax.main --config=configs/tcga_study.py --workdir=/data/run \
        --config.data.slides='/data/tcga/*.svs' --config.stages=study \
        --config.study.bags.labels=/data/subtypes.csv        # or /data/hrd.csv

The work directory holds a run of configs/tcga.py. The CSV file (not here) has the columns case
(TCGA-XX-XXXX) and label, one label a case; slides of other cases are left out.
Expected: AUC at 1 %, 1 % + synthetic, 10 %, 10 % + synthetic and 20 % of about 1000 slides (LRDM,
CVPR 2024); the denoiser, bags and splits were its authors':

    subtypes, CLAM-SB   .725  .812  .886  .898  .910
    subtypes, DSMIL     .609  .659  .838  .856  .905
    HRD, CLAM-SB        .603  .644  .649  .765  .787
    HRD, DSMIL          .517  .554  .563  .639  .669

Hardware and hours, estimated from FLOPs: 1000 slides of 1024 patches, each regenerated once in 12
steps of 208 GFLOP, 7 of them guided, are 4 EFLOP, 2.8 h of one H200 at an MFU of 0.4. Bags are
padded: 1000 of 1024 × 384 floats are 1.6 GB, three such sets are held.
"""

from configs import tcga


def get_config():
    """The published sizes of CLAM and DSMIL, and bags of slides."""
    config = tcga.get_config()
    study = config.study
    study.tasks = ("bags",)
    study.fractions = (0.01, 0.1, 0.2)
    study.seeds = 5
    bags = study.bags
    bags.of = "slides"
    bags.count = bags.count_test = 0
    bags.cells = 1024
    bags.models = ("clam", "dsmil")
    bags.network.width = 512
    bags.network.hidden = 256
    bags.network.clam_instances = 8
    bags.network.fit.num_steps = 4000
    bags.network.fit.batch_size = 8
    bags.network.fit.learning_rate = 2e-4
    return config
