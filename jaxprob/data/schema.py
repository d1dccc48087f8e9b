"""What the columns and the classes of a fit are called."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array

from jaxprob.data.labels import of_known


def feature_names(x: Any) -> tuple[str, ...] | None:
    """The column names of a DataFrame, of any library.

    Args:
        x: anything.

    Returns:
        The names as strings, or None where x has no columns.

    Example:
        >>> feature_names([[1.0, 2.0]]) is None
        True
    """
    columns = getattr(x, "column_names", getattr(x, "columns", None))  # pyarrow has both
    return None if columns is None else tuple(str(c) for c in columns)


@dataclass(frozen=True)
class Schema:
    """What the columns of x are, and what the numbers stand for that y is made of.

    Attributes:
        width: how many columns x has, None where that is not known.
        features: their names, where x was a DataFrame.
        classes: the labels, where y held other ones than 0, ..., K - 1.

    Example:
        >>> Schema(2, ("age", "dose")).columns([[1.0, 2.0]])
        [[1.0, 2.0]]
    """

    width: int | None = None
    features: tuple[str, ...] | None = None
    classes: tuple[Any, ...] | None = None

    def columns(self, x: Any) -> Any:
        """The columns of a table in the order in which they were fitted.

        Args:
            x: (n, d); only a DataFrame has names.

        Returns:
            What came, or the same table with its columns in order.

        Raises:
            ValueError: for other columns, with what was fitted and what is there.
        """
        names, shape = feature_names(x), np.shape(x)
        if names is not None and self.features is not None and names != self.features:
            lacking = [n for n in self.features if n not in names]
            more = [n for n in names if n not in self.features]
            if lacking or more or len(set(names)) < len(names):
                raise ValueError(
                    f"x: expected the columns that were fitted, {self.features}, got {names}"
                    + (f"; {lacking} are lacking" if lacking else "")
                    + (f"; {more} were not fitted" if more else "")
                )
            places = [names.index(n) for n in self.features]
            return x.iloc[:, places] if hasattr(x, "iloc") else x.select(list(self.features))
        if self.width is not None and (len(shape) != 2 or shape[1] != self.width):
            raise ValueError(f"x: expected {self.width} columns, as were fitted, got shape {shape}")
        return x

    def codes(self, y: Any) -> Any:
        """Labels as the numbers that stand for them."""
        if self.classes is None or isinstance(y, Array):
            return y
        return of_known(y, self.classes)

    def labels(self, codes: Array) -> Any:
        """The labels that numbers stand for: an array of NumPy, or the numbers themselves."""
        return codes if self.classes is None else np.array(self.classes)[np.asarray(codes)]


UNNAMED = Schema()
