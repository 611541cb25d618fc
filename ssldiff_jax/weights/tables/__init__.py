"""Which tensor of a published file is which parameter, one file for each family."""
