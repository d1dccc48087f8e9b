"""Densities and classes from the nearest examples."""
