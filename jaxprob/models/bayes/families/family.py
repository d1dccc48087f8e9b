"""What a family is, which columns of x it describes, and checks of its settings."""

from dataclasses import replace
from numbers import Integral
from typing import Any, Protocol

import numpy as np
from jax import Array

from jaxprob.contract.settings import number
from jaxprob.models.bayes.families.discrete import Bernoulli, Categorical, Multinomial
from jaxprob.models.bayes.families.gaussian import Gaussian


class Family(Protocol):
    """A density for each class of some of the columns of x; hashable settings."""

    @property
    def columns(self) -> tuple[int, ...] | None:
        """Of x; all where None."""
        ...

    @property
    def smoothed(self) -> bool:
        """Whether a class without examples has a maximum too."""
        ...

    @property
    def expected(self) -> str:
        """What the entries of x must be, in words."""
        ...

    def valid(self, x: Any, xp: Any) -> Any:
        """(n, d) bool, or () if all are: which entries can be."""
        ...

    def init(self, num_features: int, num_classes: int, dtype: Any) -> Any:
        """Parameters of the most even densities."""
        ...

    def width(self, params: Any) -> int:
        """How many columns of x the parameters are for."""
        ...

    def names(self, columns: list[str]) -> list[list[str]]:
        """For each leaf of the parameters what the entries of a row are called."""
        ...

    def canonical(self, params: Any) -> Any:
        """Of the parameters with the same density, those whose logits sum to zero."""
        ...

    def log_probs(self, params: Any, x: Array) -> Array:
        """(n, K) the log-densities, nats, without what no class and no parameter changes."""
        ...

    def constant(self, x: Array) -> Array:
        """(n,) what `log_probs` leaves out, nats."""
        ...

    def statistics(self, x: Array, member: Array) -> Any:
        """What a maximum needs to know of examples (n, d), and the share (n, K) in each class."""
        ...

    def merge(self, a: Any, b: Any) -> Any:
        """The statistics of two sets of examples together."""
        ...

    def log_likelihood(self, params: Any, statistics: Any) -> Array:
        """Σ_ik m_ik log p_k(x_i), nats."""
        ...

    def grad(self, params: Any, statistics: Any) -> Any:
        """Its derivatives (3.2, 3.4)."""
        ...

    def curve(self, params: Any, statistics: Any, along: Any) -> Any:
        """Minus its Hessian (3.3, 3.4), times a tree like the parameters."""
        ...

    def log_prior(self, params: Any) -> Array:
        """Of the maximum a posteriori, up to a constant, nats."""
        ...

    def estimate(self, statistics: Any) -> tuple[Any, Array, Any]:
        """The maximum a posteriori; () whether none is finite, and along what it rises for ever."""
        ...

    def sample(self, params: Any, key: Array, y: Array, x: Array) -> Array:
        """(n, d) features of examples of given classes; x as it is for what the model is given."""
        ...


def columns_of(family: Family, x: Any) -> Any:
    """The columns of x (..., d) that a family describes, without a copy where they are all.

    Args:
        family: such as `Gaussian()`.
        x: (..., d).

    Returns:
        (..., d of the family).

    Example:
        >>> columns_of(Gaussian(columns=(1,)), np.eye(2)).tolist()
        [[0.0], [1.0]]
    """
    columns = family.columns
    if columns is None or columns == tuple(range(x.shape[-1])):
        return x
    if columns == tuple(range(columns[0], columns[-1] + 1)):
        return x[..., columns[0] : columns[-1] + 1]
    return x[..., np.asarray(columns)]


def check_columns(families: tuple[Family, ...], num_columns: int) -> None:
    """Raise a ValueError unless x has the columns that families describe.

    Args:
        families: some.
        num_columns: of x.

    Example:
        >>> check_columns((Gaussian((1,)),), 2)
    """
    beyond = [c for family in families for c in family.columns or () if c >= num_columns]
    if beyond:
        raise ValueError(f"x: expected at least {max(beyond) + 1} columns, got {num_columns}")
    for family in families:
        sizes = getattr(family, "num_categories", 1)
        columns = num_columns if family.columns is None else len(family.columns)
        if isinstance(sizes, tuple) and len(sizes) != columns:
            raise ValueError(f"x: expected {len(sizes)} columns of categories, got {columns}")


def check_widths(families: tuple[Family, ...], params: tuple[Any, ...], x: Any) -> None:
    """Raise a ValueError unless x has the columns that parameters are for.

    Args:
        families: some.
        params: of each.
        x: (n, d).

    Example:
        >>> family = Gaussian()
        >>> check_widths((family,), (family.init(2, 3, "float32"),), np.zeros((5, 2)))
    """
    if x.ndim != 2:
        raise ValueError(f"x: expected shape (n, d), got {x.shape}")
    check_columns(families, x.shape[1])
    for family, part in zip(families, params, strict=True):
        width = family.width(part)
        if family.columns is None and x.shape[1] != width:
            raise ValueError(f"x: expected {width} columns, as were fitted, got shape {x.shape}")


def check_families(families: Any) -> tuple[Any, ...]:
    """Families as a tuple, their settings checked; no two describe the same column.

    Args:
        families: some, or one.

    Returns:
        A tuple of them.

    Raises:
        TypeError: for what is no family.
        ValueError: for none, for columns that overlap or are no integers from 0 on, and for
            negative smoothing.

    Example:
        >>> check_families([Gaussian()])
        (Gaussian(columns=None, shared_scale=False, prior_count=0.0, prior_scale=1.0),)
    """
    kinds = Gaussian, Bernoulli, Multinomial, Categorical
    some = (families,) if isinstance(families, kinds) else tuple(families)
    if not some:
        raise ValueError("features: expected at least one family, such as Gaussian(), got none")
    for family in some:
        if not isinstance(family, kinds):
            names = ", ".join(kind.__name__ for kind in kinds)
            raise TypeError(f"features: expected one of {names}, got {family!r}")
    some = tuple(map(_checked, some))
    columns = [family.columns for family in some]
    if len(some) > 1:
        if None in columns:
            raise ValueError("features: expected columns for each of several families, got None")
        every = [c for block in columns for c in block]  # pyright: ignore[reportOptionalIterable]
        twice = sorted({c for c in every if every.count(c) > 1})
        if twice:
            raise ValueError(f"features: expected each column in one family, got {twice} in two")
    return some


def _checked(family: Any) -> Any:
    """The family, its settings checked, as numbers and tuples of Python."""
    name, settings = type(family).__name__, {}
    columns = family.columns
    if columns is not None:
        found = _whole_numbers(columns, 0)
        if not found or len(set(found)) < len(found):
            raise ValueError(
                f"columns of {name}: expected a tuple of different integers from 0 on, "
                f"got {columns!r}"
            )
        settings["columns"] = columns = found
    for setting in ("smoothing", "prior_count", "prior_scale"):
        if hasattr(family, setting):
            settings[setting] = number(f"{setting} of {name}", getattr(family, setting))
    if isinstance(family, Categorical):
        given = family.num_categories
        several = np.ndim(given) == 1
        sizes = _whole_numbers(given if several else (given,), 1)
        if not sizes:
            raise ValueError(f"num_categories: expected integers of at least 1, got {given!r}")
        settings["num_categories"] = sizes if several else sizes[0]
        if several and columns is not None and len(sizes) != len(columns):
            raise ValueError(
                f"num_categories: expected one for each of {len(columns)} columns, got {len(sizes)}"
            )
    return replace(family, **settings)


def _whole_numbers(values: Any, least: int) -> tuple[int, ...] | None:
    """Numbers as a tuple, None where they are none of at least some size."""
    if np.ndim(values) != 1:
        return None
    if not all(isinstance(v, Integral) and not isinstance(v, bool) for v in values):
        return None
    whole = tuple(map(int, values))
    return whole if all(v >= least for v in whole) else None
