"""One loop for every model: state, mesh, step, checkpoints, logs. How parameters and batches lie on
a mesh is decided here, and no other sub-package calls the checkpoint library."""
