"""HTTP and its edges. Imports controllers and models."""

__version__ = "0.1.0"
