"""Serves artifacts through Ray Serve."""
