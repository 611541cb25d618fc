"""Published weights: safe readers, and the tables that say which tensor is which parameter."""
