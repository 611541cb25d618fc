"""From features or pixels to figures, each with what is known of its error."""
