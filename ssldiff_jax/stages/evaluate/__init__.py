"""Stage `evaluate`: generated patches and large images against held-out ones."""
