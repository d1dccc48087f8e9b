"""Mixtures of densities."""
