"""What both searches for the best cut share: its gain, and sums of examples in order."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

_FEW, _SHORT = 4, 4096  # classes, and what there is of each, that are summed without a loop
_STEPS = 32  # in which a running count is found, for many places at once
ROUNDING = 4  # of the weight of a node, in units of eps: gains that differ by less are equal


class Cut(NamedTuple):
    """The best split of each node: by one column, or by any.

    Attributes:
        gain: (nodes,) nats; minus infinity where there is none.
        key: (nodes,) up to which what is known goes left.
        missing_right: (nodes,) int32.
    """

    gain: Array
    key: Array
    missing_right: Array


class Sides(NamedTuple):
    """Cuts, by class and in sum.

    Attributes:
        terms: (K, ...) nats, the gain of each class (equation 3.25).
        left: (...) the weight of what goes left.
        right: (...) the weight of what goes right.
        weight: (...) of both.
    """

    terms: Array
    left: Array
    right: Array
    weight: Array


def sides(left: Array, total: Array) -> Sides:
    """What each class gains by each cut.

    Args:
        left: (K, ...) weights of the classes that go left.
        total: (K, ...) of all.

    Returns:
        Sides.

    Example:
        >>> sides(jnp.array([[2.0], [0.0]]), jnp.array([[2.0], [2.0]])).terms.round(4).tolist()
        [[1.386299967765808], [1.386299967765808]]
    """
    w_left, w_right, weight = over_classes(lambda a, b: (a, b - a, b), left, total)
    # The share of a class in a side is compared with that in the node: gains that are small beside
    # the entropies keep their digits.
    inverse = 1 / or_one(total)
    of_left, of_right = weight / or_one(w_left), weight / or_one(w_right)
    right = total - left
    in_left = jnp.where(left > 0, left * of_left[None] * inverse, 1.0)
    in_right = jnp.where(right > 0, right * of_right[None] * inverse, 1.0)
    terms = left * jnp.log(in_left) + right * jnp.log(in_right)
    return Sides(terms, w_left, w_right, weight)


def allowed(each: Sides, min_leaf_weight: float) -> Array:
    """(...) the gain of each cut, minus infinity where a side is too light.

    Args:
        each: Sides.
        min_leaf_weight: of either side; anything positive where zero.

    Returns:
        Nats.

    Example:
        >>> each = sides(jnp.array([[2.0], [0.0]]), jnp.array([[2.0], [2.0]]))
        >>> float(allowed(each, 3.0)[0])
        -inf
    """
    gain = over_classes(itself, each.terms)
    smaller = jnp.minimum(each.left, each.right)
    return jnp.where((smaller >= min_leaf_weight) & (smaller > 0), gain, -jnp.inf)


def over_classes(of_class: Callable[..., Any], *a: Array) -> Any:
    """The sum of a function of the rows of arrays (K, ...).

    One by one, since XLA's own sum over few long rows takes 50 times as long, and a program of all
    would find long rows again for each use; short ones are not worth a loop.

    Args:
        of_class: of a row of each array.
        *a: (K, ...).

    Returns:
        What the function returns.

    Example:
        >>> over_classes(itself, jnp.ones((3, 2))).tolist()
        [3.0, 3.0]
    """
    k = len(a[0])
    if k <= _FEW and a[0][0].size <= _SHORT:
        each = [of_class(*(b[i] for b in a)) for i in range(k)]
        return jax.tree.map(lambda *rows: sum(rows[1:], rows[0]), *each)
    zero = jax.tree.map(jnp.zeros_like, jax.eval_shape(of_class, *(b[0] for b in a)))

    def add(so_far: Any, rows: tuple[Array, ...]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, so_far, of_class(*rows)), None

    return jax.lax.scan(add, zero, a)[0]


def itself(a: Array) -> Array:
    """The same.

    Args:
        a: anything.

    Returns:
        It.

    Example:
        >>> itself(3)
        3
    """
    return a


def by_class(y: Array, weights: Array, rows: Array, num_classes: int) -> Array:
    """The weight of examples, in the row of their class.

    Args:
        y: (n,) int32 in 0..K-1.
        weights: (n,).
        rows: (m,) which examples.
        num_classes: K.

    Returns:
        (K, m).

    Example:
        >>> by_class(jnp.array([0, 1]), jnp.array([2.0, 3.0]), jnp.array([1, 0]), 2).tolist()
        [[0.0, 2.0], [3.0, 0.0]]
    """
    return jnp.where(at(y, rows)[None] == jnp.arange(num_classes)[:, None], at(weights, rows), 0)


def running(a: Array, first: Array) -> Array:
    """Sums from the first place of each node on: in blocks side by side, then over them.

    Args:
        a: (K, n).
        first: (n,) bool, whether a node begins here.

    Returns:
        (K, n).

    Example:
        >>> running(jnp.ones((1, 4)), jnp.array([True, False, True, False])).tolist()
        [[1.0, 2.0, 1.0, 2.0]]
    """
    k, n = a.shape
    size = math.isqrt(n)
    blocks = -(-n // size)
    pad = blocks * size - n
    a = jnp.moveaxis(jnp.pad(a, ((0, 0), (0, pad))).reshape(k, blocks, size), 2, 0)
    goes_on = jnp.pad(~first, (0, pad)).reshape(blocks, size).T.astype(a.dtype)

    def within(so_far: tuple[Array, Array], new: tuple[Array, Array]) -> tuple[Any, Any]:
        both = so_far[0] * new[1][None] + new[0], so_far[1] * new[1]
        return both, both

    def over(so_far: Array, new: tuple[Array, Array]) -> tuple[Array, Array]:
        return so_far * new[1] + new[0], so_far

    zero = jnp.zeros((k, blocks), a.dtype), jnp.ones(blocks, a.dtype)
    _, (inner, open_) = jax.lax.scan(within, zero, (a, goes_on))
    _, before = jax.lax.scan(over, jnp.zeros(k, a.dtype), (inner[-1].T, open_[-1]))

    def joined(i: Array) -> Array:
        return (inner[:, i] + before[:, i][None] * open_).T.reshape(-1)[:n]

    return jax.lax.map(joined, jnp.arange(k))


def counted(a: Array) -> Array:
    """How many there are up to each place.

    Args:
        a: (n,) bool or int32.

    Returns:
        (n,) int32.

    Example:
        >>> counted(jnp.array([True, False, True])).tolist()
        [1, 1, 2]
    """
    n = len(a)
    blocks = -(-n // _STEPS)
    each = jnp.pad(a.astype(jnp.int32), (0, blocks * _STEPS - n)).reshape(blocks, _STEPS)

    def add(so_far: Array, new: Array) -> tuple[Array, Array]:
        return so_far + new, so_far + new

    last, inner = jax.lax.scan(add, jnp.zeros(blocks, jnp.int32), each.T)
    return (inner.T + (jnp.cumsum(last) - last)[:, None]).reshape(-1)[:n]


def at(a: Array, *index: Array) -> Array:
    """Entries whose places are known to be there.

    Args:
        a: any array.
        *index: integers.

    Returns:
        The entries.

    Example:
        >>> at(jnp.array([5.0, 6.0]), jnp.array([1])).tolist()
        [6.0]
    """
    return a.at[index].get(mode="promise_in_bounds")


def or_one(a: Array) -> Array:
    """One in place of what is not positive.

    Args:
        a: floating.

    Returns:
        Of the same shape.

    Example:
        >>> or_one(jnp.array([0.0, 3.0])).tolist()
        [1.0, 3.0]
    """
    return jnp.where(a > 0, a, 1.0)


def together(count: int) -> int | None:
    """How many columns at a time.

    Args:
        count: of columns.

    Returns:
        On a CPU None, for one, which stays in the cache.

    Example:
        >>> together(5) in (None, 5)
        True
    """
    return None if jax.default_backend() == "cpu" else count
