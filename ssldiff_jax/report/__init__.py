"""What a finished run shows: one file of figures and one page."""
