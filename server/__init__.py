"""HTTP and its edges. Imports controllers and models."""
