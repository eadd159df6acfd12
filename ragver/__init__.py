"""ragver: the consistency layer for retrieval-augmented generation."""

__version__ = "0.1.0"
