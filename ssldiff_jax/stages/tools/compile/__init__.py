"""Tool `compile`: a run's programs, compiled for devices that are not here."""
