"""What every room may use: shapes, config schema, random streams, layers, devices, memory."""
