"""The table of steps and tools, and what each does: read what others wrote, write one folder."""
