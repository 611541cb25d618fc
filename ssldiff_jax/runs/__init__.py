"""A run: its config, its work directory, its command, and the table of stages that it follows."""
