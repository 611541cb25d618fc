"""What every training has."""

from ml_collections import ConfigDict


def get_config(*, steps: int, batch_size: int, learning_rate: float) -> ConfigDict:
    c = ConfigDict()
    # With more than a finished training has done, it continues from its last checkpoint.
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
