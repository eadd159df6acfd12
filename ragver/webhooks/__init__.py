"""Recalls told to other programs' URLs, signed, at least once."""
