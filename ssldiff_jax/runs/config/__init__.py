"""The schema of a run's config, section by section."""
