"""A run: its config, its command, its work directory, and what a stage is and is given."""
