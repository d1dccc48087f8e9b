"""Many fits as users of other libraries make them today, and how good the solutions are."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

_BATCHES = 4  # of lanes, for each worker of a pool
_ENTRIES = 1 << 22  # of one array of `quality`


class Solutions(NamedTuple):
    """Linear predictors of B lanes; K is 1 for two classes."""

    coef: np.ndarray  # (B, K, d)
    bias: np.ndarray  # (B, K)

    def centred(self) -> "Solutions":
        """The same probabilities, with the last of several classes as the reference."""
        if self.coef.shape[1] == 1:
            return self
        return Solutions(self.coef - self.coef[:, -1:], self.bias - self.bias[:, -1:])


class Quality(NamedTuple):
    """In float64, whatever the fits were in."""

    value: np.ndarray  # (B,) penalised negative log-likelihood, nats
    grad_norm: np.ndarray  # (B,) largest entry of its gradient


def quality(
    x: np.ndarray,
    y: np.ndarray,
    found: Solutions,
    weights: np.ndarray | None = None,
    l2: np.ndarray | None = None,
) -> Quality:
    """Objective and gradient of lanes, by NumPy.

    Args:
        x: (n, d), or (B, n, d).
        y: (n,), or (B, n).
        found: what was fitted.
        weights: (B, n).
        l2: (B,).
    """
    lanes, classes, _ = found.coef.shape
    step = max(1, _ENTRIES // (x.shape[-2] * max(2, classes)))
    parts = []
    for start in range(0, lanes, step):
        at = slice(start, start + step)
        parts.append(
            _quality(
                np.asarray(x[at] if x.ndim == 3 else x, np.float64),
                y[at] if y.ndim == 2 else y,
                np.asarray(found.coef[at], np.float64),
                np.asarray(found.bias[at], np.float64),
                1.0 if weights is None else np.asarray(weights[at], np.float64)[..., None],
                np.zeros(1) if l2 is None else l2[at],
            )
        )
    return Quality(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _quality(
    x: np.ndarray,
    y: np.ndarray,
    coef: np.ndarray,
    bias: np.ndarray,
    weights: Any,
    l2: np.ndarray,
) -> Quality:
    z = x @ coef.transpose(0, 2, 1) + bias[:, None, :]
    binary = z.shape[2] == 1
    if binary:
        z = np.concatenate([np.zeros_like(z), z], axis=2)
    z -= z.max(axis=2, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=2, keepdims=True))
    truth = np.arange(z.shape[2]) == y[..., None]
    value = -(log_p * truth * weights).sum(axis=(1, 2)) + l2 / 2 * (coef**2).sum(axis=(1, 2))
    residual = (np.exp(log_p) - truth) * weights
    residual = residual[:, :, 1:] if binary else residual
    grad = residual.transpose(0, 2, 1) @ x + l2[:, None, None] * coef
    slopes = np.abs(grad).max(axis=(1, 2))
    return Quality(value, np.maximum(slopes, np.abs(residual.sum(axis=1)).max(axis=1)))


def scikit_learn_lanes(x: np.ndarray, y: np.ndarray, weights: np.ndarray, solver: str) -> Solutions:
    """Fits without a penalty that differ in their weights (B, n), in a loop."""
    from sklearn.linear_model import LogisticRegression

    coefs, biases = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what did not converge shows in its gradient
        for one in weights:
            fitted = LogisticRegression(C=np.inf, solver=solver).fit(x, y, one)
            coefs.append(fitted.coef_)
            biases.append(fitted.intercept_)
    return Solutions(np.stack(coefs), np.stack(biases))


def scikit_learn_pool(
    pool: Any, x: np.ndarray, y: np.ndarray, weights: np.ndarray, solver: str
) -> Solutions:
    """The same in a pool of processes, each of which gets x with a batch of lanes."""
    from joblib import delayed

    batches = np.array_split(weights, min(len(weights), _BATCHES * pool.n_jobs))
    parts = pool(delayed(scikit_learn_lanes)(x, y, batch, solver) for batch in batches)
    return Solutions(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def scikit_learn_loop(x: np.ndarray, y: np.ndarray, solver: str) -> Solutions:
    """Fits without a penalty of lanes with their own x (B, n, d) and y (B, n)."""
    parts = [
        scikit_learn_lanes(x_one, y_one, np.ones((1, len(y_one))), solver)
        for x_one, y_one in zip(x, y, strict=True)
    ]
    return Solutions(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def scikit_learn_path(
    x: np.ndarray, y: np.ndarray, splits: list, penalties: np.ndarray, solver: str, workers: int
) -> tuple[Solutions, np.ndarray]:
    """Cross-validated fits, each started at the last one of its fold, largest penalty first.

    Returns:
        Solutions of all folds, for each all penalties; (folds, penalties) mean held-out loss, nats.
    """
    from sklearn.linear_model import LogisticRegressionCV

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings: dict[str, Any] = {
            "Cs": 1 / penalties,
            "cv": splits,
            "l1_ratios": (0.0,),
            "solver": solver,
            "scoring": "neg_log_loss",
            "refit": False,
            "use_legacy_attributes": False,
            "n_jobs": workers,
        }
        fitted: Any = LogisticRegressionCV(**settings).fit(x, y)
    theta = fitted.coefs_paths_.reshape(len(splits) * len(penalties), 1, -1)
    return Solutions(theta[..., :-1], theta[..., -1]), -fitted.scores_[:, 0]


def statsmodels_loop(x: np.ndarray, y: np.ndarray) -> Solutions:
    """Fits without a penalty of lanes with their own x (B, n, d) and y (B, n)."""
    from statsmodels.discrete.discrete_model import Logit

    theta = np.stack(
        [
            Logit(y_one, with_ones(x_one)).fit(method="newton", disp=0).params
            for x_one, y_one in zip(x, y, strict=True)
        ]
    )
    return from_theta(theta)


def glmax_lanes() -> Callable[[Any, Any], Any]:
    """A compiled function of x (B, n, p), the intercept's column included, and y (B, n)."""
    import equinox as eqx
    import glmax

    @eqx.filter_jit
    @eqx.filter_vmap
    def fit(x: Any, y: Any) -> Any:
        return glmax.fit(glmax.Binomial(), x, y).params.beta

    return fit


def with_ones(x: np.ndarray) -> np.ndarray:
    """With one more column, for the intercept."""
    return np.concatenate([x, np.ones((*x.shape[:-1], 1), x.dtype)], axis=-1)


def from_theta(theta: np.ndarray) -> Solutions:
    """From (B, d + 1), the intercept last."""
    return Solutions(theta[:, None, :-1], theta[:, -1:])
