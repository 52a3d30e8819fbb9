"""The package's version, in a file that nothing else is needed to read."""

__version__ = "0.1.0"
