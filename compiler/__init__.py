"""Compiles specs to artifacts."""
