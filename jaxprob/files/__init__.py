"""Fits in files, which hold numbers, settings and names, and no code."""

from jaxprob.files.saving import load as load
from jaxprob.files.saving import save as save
