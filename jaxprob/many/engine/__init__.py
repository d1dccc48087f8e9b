"""Lanes: how many fits run at once."""
