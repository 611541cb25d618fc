"""The sections `runtime`, `logging` and `mesh`: what a run may use of the machine, and where it
shows itself."""

from ml_collections import ConfigDict


def runtime() -> ConfigDict:
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
    # auto: on a CPU of two or more cores, stages that do not read one another run at the same time,
    # each in a process with its part of the cores; small models leave cores idle. Accelerators and
    # several hosts run one stage at a time, as never does anywhere: it takes less memory. Results
    # are the same bits.
    c.side_by_side = "auto"
    return c


def logging() -> ConfigDict:
    c = ConfigDict()
    # How often, over a training of autoencoder, denoiser or prior, its averaged weights are looked
    # at: their loss on held-out examples, and pictures for TensorBoard; 0 is never.
    c.looks = 4
    # Where figures and pictures also go: wandb (pip install wandb), mlflow (pip install mlflow), or
    # both, separated by a comma; "" is nowhere else.
    c.to = ""
    # Project of wandb, experiment of MLflow.
    c.project = "ssldiff_jax"
    # offline writes into the folder wandb/ of the work directory, which `wandb sync` sends later;
    # online sends at once.
    c.wandb_mode = "offline"
    # Address of an MLflow server or store; "" is the file mlflow.db of the work directory.
    c.mlflow_uri = ""
    return c


def mesh() -> ConfigDict:
    c = ConfigDict()
    # Devices along each axis; one may be -1 for all that are left.
    c.data = -1
    # State is split over fsdp, parameters are gathered once a step; 0 takes up to 8 devices.
    c.fsdp = 0
    c.model = 1
    # "regex = dimension:axis": which dimension of which parameters is split over which axis.
    c.rules = ("kernel$ = -1:fsdp",)
    return c
