"""Tables and drawings of the pages: made from results and code, never written by hand."""
