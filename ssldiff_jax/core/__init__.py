"""What every room may lean on: shapes, config, random streams, layers, attention, files."""
