"""How far two results may differ, by dtype. Nothing here is tuned: see each line for its reason."""

EPS = {"float64": 2.0**-52, "float32": 2.0**-23}

SAME_SUM = {name: 32 * eps for name, eps in EPS.items()}
"""Relative to Σ |terms|: sums of up to 1e4 terms, in another order."""

SAME_FIT = {"float64": 1e-6, "float32": 2e-2}
"""Relative to 1 + |θ|, for two fits of one problem whose gaps are below the default tolerances: in
float32 a gap of 1e-4 nats is 1e-2 standard errors of a parameter."""

EIGHT_DIGITS = 1e-8
"""Against statsmodels, as its own tests compare with R and Stata."""
