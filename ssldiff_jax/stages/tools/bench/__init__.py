"""Tool `bench`: what models, images and archives cost on this machine."""
