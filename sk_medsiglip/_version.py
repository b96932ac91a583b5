"""The version of the package: read by the build, by pickles and by ``doctor``."""

__version__ = "0.1.0"
