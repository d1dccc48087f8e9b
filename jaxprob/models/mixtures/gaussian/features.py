"""What the examples of a Gaussian mixture can be, and whether they are enough."""

from typing import Any

import numpy as np

from jaxprob.contract import (
    Bind,
    Features,
)
from jaxprob.data.columns import column_name, observed, varying
from jaxprob.numerics.products import matmul


def features(covariance: str, missing: bool, has_prior: bool, follows: bool) -> Features | None:
    """What x may hold, and what examples must determine together."""
    if not (missing or follows):
        return None
    settings = {
        "together": missing and covariance in ("full", "tied") and not has_prior,
        "spread": follows,
        "each": covariance != "spherical",
    }
    return Features(
        _any,
        _expected,
        missing=missing,
        suffice=Bind(_suffice, **settings),
        lacking=Bind(_lacking, **settings),
    )


def _any(x: Any, xp: Any) -> Any:
    """() True: there is nothing that an entry cannot be."""
    return xp.ones((), bool)


def _expected(x: Any, xp: Any) -> str:
    """Never asked for."""
    return "expected finite numbers or NaN"


def _suffice(x: Any, weights: Any, xp: Any, *, together: bool, spread: bool, each: bool) -> Any:
    """() whether examples of positive weight determine means, correlations, and the prior."""
    seen = observed(x, weights, xp=xp)
    enough = xp.all(xp.any(seen, axis=0))
    if together:
        enough = enough & xp.all(_pairs(seen, xp))
    if spread:
        varies = varying(x, weights, xp=xp)
        enough = enough & (xp.all(varies) if each else xp.any(varies))
    return enough


def _pairs(seen: Any, xp: Any) -> Any:
    """(d, d) whether two columns are observed together."""
    ones = seen.astype(xp.float32)  # a sum of ones may stop growing, but not be zero
    return (np.matmul(ones.T, ones) if xp is np else matmul(ones.T, ones)) > 0


def _lacking(x: Any, weights: Any, names: Any, *, together: bool, spread: bool, each: bool) -> str:
    seen = observed(x, weights, xp=np)
    never = ~seen.any(axis=0)
    if never.any():
        name = column_name(int(never.argmax()), names)
        return (
            f"x: expected an observed entry in every column, in an example of positive weight, got "
            f"none in {name}; drop it"
        )
    if together and not (pairs := _pairs(seen, np)).all():
        i, j = (column_name(int(k), names) for k in np.argwhere(~pairs)[0])
        return (
            f"x: expected every two columns to be observed together in some example, since "
            f"covariances are full, got none with {i} and {j}; use covariance='diagonal', drop "
            "one, or add prior_count"
        )
    name = column_name(int((~varying(x, weights, xp=np)).argmax()), names)
    which = name if each else "every column"
    return (
        f"x: expected columns that vary, since the prior follows them, got {which}, constant; drop "
        "it, or give prior_scale"
    )
