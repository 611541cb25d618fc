"""Tools: what a run can do beside its steps, one module or package for each."""
