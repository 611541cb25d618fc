"""What `main` runs, one file for each stage: read what earlier stages wrote, write one folder."""
