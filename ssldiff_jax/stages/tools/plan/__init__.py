"""Tool `plan`: what a run will count, store, compute and refuse, before it begins."""
