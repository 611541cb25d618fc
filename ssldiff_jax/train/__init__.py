"""One loop for every model: state, mesh, step, checkpoints, logs. Only this room, the stages and
`main` know a mesh, a `jit` of a step, or a checkpoint library."""
