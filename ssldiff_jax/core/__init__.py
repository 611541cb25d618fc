"""For every sub-package: shapes, config schema, random streams, layers, devices, memory."""
