"""Comparisons with other implementations; not part of the package."""
