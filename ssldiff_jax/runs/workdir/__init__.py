"""What a work directory knows of itself: what was made, from what, and what may be rebuilt."""
