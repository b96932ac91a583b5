"""Builds what is uploaded: see ``python -m release.build --help``."""
