"""What an example is: the variables of a model, and what each can be."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy


class Support(Protocol):
    """What y can be; `xp` is `jax.numpy`, or `numpy` for arrays of NumPy."""

    @property
    def words(self) -> str:
        """Such as "labels 0..2"."""
        ...

    def dtype(self, of_x: Any) -> Any:
        """Of y in computations, given that of x."""
        ...

    def bad(self, y: Any, xp: Any) -> Any:
        """() bool, whether some entry of y as it came is none of these; before `cast`."""
        ...

    def cast(self, y: Any, of_x: Any, xp: Any) -> Any:
        """Y in its dtype; what it cannot be stays what `bad` sees."""
        ...

    def expected(self, y: np.ndarray) -> str:
        """In words, what was expected, what is there, and a remedy."""
        ...

    def alone(self, y: Any, weights: Any) -> Any:
        """() the largest log-likelihood of y without features, NaN where there is no formula."""
        ...


@dataclass(frozen=True)
class Classes:
    """Labels 0, ..., num - 1, of any dtype.

    Example:
        >>> Classes(3).words
        'labels 0..2'
    """

    num: int

    @property
    def words(self) -> str:
        """In words."""
        return f"labels 0..{self.num - 1}"

    def dtype(self, of_x: Any) -> Any:
        """Of labels."""
        del of_x
        return np.dtype(np.int32)

    def bad(self, y: Any, xp: Any) -> Any:
        """() bool, whether some entry is no label."""
        if y.dtype == bool:
            return xp.zeros((), bool)
        outside = xp.any((y < 0) | (y >= self.num))
        return outside | xp.any(y != xp.floor(y)) if _is_floating(y) else outside

    def cast(self, y: Any, of_x: Any, xp: Any) -> Any:
        """Labels as int32; what is no integer, or beyond them, becomes one out of range."""
        del of_x
        if y.dtype == np.int32:
            return y
        if _is_floating(y):
            y = xp.where(y == xp.floor(y), y, -1.0)
        if y.dtype != bool and y.dtype.itemsize > 2:
            most = np.iinfo(np.int32).max  # a cast would wrap 2³² to class 0
            y = xp.where((y >= 0) & (y <= most), y, -1 if y.dtype.kind != "u" else most)
        return y.astype(np.int32)

    def expected(self, y: np.ndarray) -> str:
        """In words."""
        bad, row = _first(y, (y < 0) | (y >= self.num) | (y != np.floor(y)))
        hint = "numpy.unique(y, return_inverse=True)[1] makes such labels"
        if bad != bad:
            bad, hint = f"{bad} in row {row}", _DROP
        elif bad == self.num:
            hint = f"for labels 1..{self.num} pass y - 1"
        elif bad == -1 and self.num == 2:
            hint = "for labels -1 and 1 pass (y + 1) // 2"
        return f"expected integers 0..{self.num - 1} for {self.num} classes, got {bad}; {hint}"

    def alone(self, y: Any, weights: Any) -> Any:
        """() Σ_k C_k log(C_k / C), with C_k the weight of a class."""
        counts = jnp.zeros(self.num, weights.dtype).at[y].add(weights)
        return jnp.sum(xlogy(counts, counts / jnp.sum(counts)))


@dataclass(frozen=True)
class Counts:
    """Whole numbers 0, 1, 2, ..., of any dtype; functions get them in the dtype of x.

    Example:
        >>> bool(Counts().bad(np.array([1.5]), np))
        True
    """

    @property
    def words(self) -> str:
        """In words."""
        return "counts 0, 1, 2, ..."

    def dtype(self, of_x: Any) -> Any:
        """That of x."""
        return np.dtype(of_x)

    def bad(self, y: Any, xp: Any) -> Any:
        """() bool, whether some entry is no count."""
        return ~xp.all((y >= 0) & (y == xp.floor(y)) & xp.isfinite(y))

    def cast(self, y: Any, of_x: Any, xp: Any) -> Any:
        """Counts in the dtype of x."""
        del xp
        return y.astype(self.dtype(of_x))

    def expected(self, y: np.ndarray) -> str:
        """In words."""
        bad, row = _first(y, ~((y >= 0) & (y == np.floor(y)) & np.isfinite(y)))
        return f"expected whole numbers of at least 0, got {bad} in row {row}; {_DROP}"

    def alone(self, y: Any, weights: Any) -> Any:
        """() NaN."""
        del y
        return jnp.full((), jnp.nan, weights.dtype)


@dataclass(frozen=True)
class Real:
    """Finite numbers between two bounds, or vectors of them; in the dtype of x.

    Example:
        >>> Real(low=0.0).words
        'numbers above 0'
    """

    shape: tuple[int, ...] = ()
    low: float = -np.inf
    high: float = np.inf

    @property
    def words(self) -> str:
        """In words."""
        low = f"above {self.low:g}" if self.low > -np.inf else ""
        high = f"below {self.high:g}" if self.high < np.inf else ""
        return " ".join(["numbers", " and ".join(filter(None, (low, high)))]).strip()

    def dtype(self, of_x: Any) -> Any:
        """That of x."""
        return np.dtype(of_x)

    def bad(self, y: Any, xp: Any) -> Any:
        """() bool, whether some entry is not finite, or outside."""
        return ~xp.all((y > self.low) & (y < self.high))

    def cast(self, y: Any, of_x: Any, xp: Any) -> Any:
        """Numbers in the dtype of x."""
        del xp
        return y.astype(self.dtype(of_x))

    def expected(self, y: np.ndarray) -> str:
        """In words."""
        bad, row = _first(y, ~((y > self.low) & (y < self.high)))
        return f"expected finite {self.words}, got {bad} in row {row}; {_DROP}"

    def alone(self, y: Any, weights: Any) -> Any:
        """() NaN."""
        del y
        return jnp.full((), jnp.nan, weights.dtype)


@dataclass(frozen=True)
class Features:
    """What entries of x a model is defined for: any finite numbers where nothing else is said."""

    valid: Callable[..., Any] | None = None
    """(x, xp) -> () bool, xp being `jax.numpy`, or `numpy` for arrays of NumPy."""
    expected: Callable[..., str] | None = None
    """(x, numpy) -> in words what was expected where, and what is there."""
    missing: bool = False
    """Whether NaN stands for an entry that was not observed."""
    suffice: Callable[..., Any] | None = None
    """(x, weights or None, xp) -> () bool: whether the examples of positive weight, taken together,
    determine what the model needs of every column; always where None. A lane whose examples do not
    is SINGULAR."""
    lacking: Callable[..., str] | None = None
    """(x, weights or None, names of the columns or None) -> in words what the examples lack."""


Variable = tuple[str, Any]


@dataclass(frozen=True)
class Variables:
    """What an example is made of: what the model is a density of, and what it is given.

    Functions of a model take (params, x, y), or (params, x) where there is no y. Make it by one of
    the three functions `conditional`, `joint` and `density`.

    Example:
        >>> Variables.conditional(Classes(2)).given
        (('x', Features(valid=None, expected=None, missing=False, suffice=None, lacking=None)),)
    """

    of: tuple[Variable, ...]
    given: tuple[Variable, ...] = ()

    @classmethod
    def conditional(
        cls, y: Support, offset: Real | None = None, x: Features | None = None
    ) -> "Variables":
        """Of y given x, and an offset for each example where there is one."""
        more = () if offset is None else (("offset", offset),)
        return cls((("y", y),), (("x", x or Features()), *more))

    @classmethod
    def joint(cls, y: Support, x: Features | None = None) -> "Variables":
        """Of x and y together."""
        return cls((("x", x or Features()), ("y", y)))

    @classmethod
    def density(cls, x: Features | None = None) -> "Variables":
        """Of x alone: functions take no y."""
        return cls((("x", x or Features()),))

    def get(self, name: str) -> Any:
        """What the variable of that name can be, None where there is no such variable."""
        return dict((*self.of, *self.given)).get(name)

    @property
    def x(self) -> Features:
        """What x can be."""
        return self.get("x")

    @property
    def y(self) -> Support | None:
        """What y can be, None where there is none."""
        return self.get("y")

    @property
    def num_classes(self) -> int | None:
        """How many labels y has, None where it holds no labels."""
        return getattr(self.y, "num", None)

    @property
    def offset_columns(self) -> int | None:
        """The columns of an offset (n, K); None where it is (n,), or where there is none."""
        return next(iter(getattr(self.get("offset"), "shape", ())), None)

    @property
    def is_conditional(self) -> bool:
        """Whether x is given: then there is a model without features, to compare with."""
        return "x" in dict(self.given)


_DROP = "drop such rows"


def _first(y: np.ndarray, bad: np.ndarray) -> tuple[Any, int]:
    """The first bad entry, and its row."""
    row = int(np.flatnonzero(bad.reshape(len(y), -1).any(axis=1))[0])
    return y[row][bad[row]].ravel()[0], row


def _is_floating(a: Any) -> bool:
    return jnp.issubdtype(a.dtype, jnp.floating)
