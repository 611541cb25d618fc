"""Tables of the README that are made from results, and never written by hand."""
