"""The package that the entry point of ``deployc.engines`` names: see ``trapped``."""
