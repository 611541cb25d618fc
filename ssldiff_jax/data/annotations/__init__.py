"""What is known of patches and cases: measured in pixels, captioned, or listed in tables."""
