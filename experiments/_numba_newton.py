"""Newton's method for many logistic regressions, written by hand in Numba: the peer to beat.

What somebody would write who has one job to do: a lane for each data set, lanes over all cores, one
pass over the rows for gradient and Hessian together, a Cholesky factorisation in two loops. It has
no line search, no weights, no penalty, and proves nothing.
"""

import numba
import numpy as np

MOST_STEPS = 50
GRAD_TOL = 1e-10


@numba.njit(fastmath=False)
def _look(x: np.ndarray, y: np.ndarray, theta: np.ndarray, grad: np.ndarray, hess: np.ndarray):
    """Gradient and lower triangle of the Hessian at theta; the bias is the last parameter."""
    n, d = x.shape
    grad[:] = 0.0
    hess[:] = 0.0
    for i in range(n):
        z = theta[d]
        for j in range(d):
            z += x[i, j] * theta[j]
        p = 1.0 / (1.0 + np.exp(-z))
        r = p - y[i]
        s = p * (1.0 - p)
        for j in range(d):
            grad[j] += r * x[i, j]
            sx = s * x[i, j]
            for k in range(j + 1):
                hess[j, k] += sx * x[i, k]
            hess[d, j] += sx
        grad[d] += r
        hess[d, d] += s


@numba.njit(fastmath=False)
def _solve(hess: np.ndarray, step: np.ndarray) -> bool:
    """Replace the matrix by its Cholesky factor, and the vector by the solution."""
    p = len(step)
    for j in range(p):
        for k in range(j):
            total = hess[j, k]
            for m in range(k):
                total -= hess[j, m] * hess[k, m]
            hess[j, k] = total / hess[k, k]
        pivot = hess[j, j]
        for m in range(j):
            pivot -= hess[j, m] ** 2
        if not pivot > 0.0:
            return False
        hess[j, j] = np.sqrt(pivot)
    for j in range(p):
        for m in range(j):
            step[j] -= hess[j, m] * step[m]
        step[j] /= hess[j, j]
    for j in range(p - 1, -1, -1):
        for m in range(j + 1, p):
            step[j] -= hess[m, j] * step[m]
        step[j] /= hess[j, j]
    return True


@numba.njit(parallel=True, fastmath=False)
def fit_lanes(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit all lanes, without a penalty.

    Args:
        x: (B, n, d) float64.
        y: (B, n) labels 0 and 1.

    Returns:
        (B, d + 1) weights and, last, bias; (B,) steps taken, -1 where a lane failed.
    """
    lanes, _, d = x.shape
    thetas = np.zeros((lanes, d + 1))
    steps = np.zeros(lanes, np.int32)
    for lane in numba.prange(lanes):
        theta = np.zeros(d + 1)
        grad = np.empty(d + 1)
        hess = np.empty((d + 1, d + 1))
        for k in range(MOST_STEPS + 1):
            _look(x[lane], y[lane], theta, grad, hess)
            if np.max(np.abs(grad)) <= GRAD_TOL:
                break
            if k == MOST_STEPS or not _solve(hess, grad):
                steps[lane] = -1
                break
            theta -= grad
            steps[lane] = k + 1
        thetas[lane] = theta
    return thetas, steps
