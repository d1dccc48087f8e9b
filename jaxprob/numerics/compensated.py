"""Products with twice the working precision, for verdicts that rounding must not decide."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxprob.numerics.logspace import two_sum
from jaxprob.numerics.products import matmul


def _halves(a: Array) -> tuple[Array, Array]:
    """A = high + low, each with half the digits, so that products of halves are exact.

    By a bit mask: the textbook split by multiplication breaks where the compiler contracts
    a multiplication and a subtraction into one operation.
    """
    bits, mask = {
        jnp.dtype("float32"): (jnp.uint32, 0xFFFFF000),
        jnp.dtype("float64"): (jnp.uint64, 0xFFFFFFFFF8000000),
    }[a.dtype]
    word = jax.lax.bitcast_convert_type(a, bits) & jnp.asarray(mask, bits)
    high = jax.lax.bitcast_convert_type(word, a.dtype)
    return high, a - high


@jax.custom_jvp
def compensated_matvec(x: Array, w: Array) -> Array:
    """The product X w, each entry as if computed in twice the precision and rounded once.

    Args:
        x: (n, d) float32 or float64.
        w: (d,) of the same dtype.

    Returns:
        (n,); error at most ε |x_iᵀw| + d² ε² Σ_j |x_ij w_j|.

    Example:
        >>> x = jnp.array([[1.0, 1e8, -1e8]], "float32")
        >>> compensated_matvec(x, jnp.ones(3, "float32")).tolist()
        [1.0]

    References:
        Ogita, Rump and Oishi, Accurate sum and dot product, SIAM Journal on Scientific Computing
        26, 2005, algorithm 5.3.
    """

    def add_column(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        total, error = carry
        for a in _halves(x[:, j]):
            for b in _halves(w[j]):
                total, lost = two_sum(total, a * b)
                error = error + lost
        return total, error

    zeros = jnp.zeros(x.shape[0], x.dtype)
    if x.shape[1] == 0:
        return zeros
    total, error = jax.lax.fori_loop(0, x.shape[1], add_column, (zeros, zeros))
    return total + error


@compensated_matvec.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x, w), (dx, dw) = primals, tangents  # bit masks have no derivative
    return compensated_matvec(x, w), matmul(dx, w) + matmul(x, dw)
