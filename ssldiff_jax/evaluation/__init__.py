"""How good generated images are: features, figures with their intervals, downstream classifiers."""
