"""Parts of Gaussian mixtures: parameters, sums, starts, what is asked of a fit."""
