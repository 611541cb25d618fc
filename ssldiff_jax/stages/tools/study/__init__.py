"""Tool `study`: whether generated patches help classifiers of patches and of bags."""
