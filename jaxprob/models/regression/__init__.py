"""Regressions: what is said of y, given features."""
