r"""Where a function has a kink, and what its derivatives on both sides are.

At a kink left and right derivative differ: that of relu or max where the arguments are equal, that
of abs at zero. Autodiff returns a number between them, and so may a derivation by hand. Close to a
kink there is one derivative, which steps across the kink do not see.

The difference of the quotients on both sides, J(h) = (f(x + h) - 2 f(x) + f(x - h)) / h, tells
these apart. Down to the h where rounding hides it, it is

    constant        at a kink,
    ~ f'' h         where f is smooth,
    zero for h < δ  at a distance of δ from a kink;

and at a jump of f the quotients themselves are in proportion to 1 / h.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxprob.testing.numerical import LEVELS, extrapolated

USUAL = tuple(range(2, 2 + LEVELS))
FINE = tuple(range(14, 14 + 3 * LEVELS, 3)), tuple(range(50, 50 + 16 * LEVELS, 16))
"""Steps are a power of two, at most max(|x|, 1), divided by 2 to these."""

_APART = 10.0  # times the error: left and right derivative differ
_UNCERTAIN = 1e4  # times the rounding: an extrapolation that went wrong
_CONSTANT = 2.0  # what changes from step to step by no more than this factor is called constant


def ends(points: np.ndarray, halvings: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Where to evaluate a function for difference quotients.

    Args:
        points: (P, p).
        halvings: (L,) the binary exponents of steps, negated, such as `USUAL`.

    Returns:
        For each coordinate of each point x + h and x - h, (P, p, L, 2), and h as far as these are
        numbers.
    """
    scale = np.exp2(np.floor(np.log2(np.maximum(np.abs(points), 1.0))))
    steps = scale[..., None] * np.exp2(-np.asarray(halvings, np.float64))
    up, down = points[..., None] + steps, points[..., None] - steps
    return np.stack([up, down], -1), np.stack(
        [up - points[..., None], points[..., None] - down], -1
    )


class Quotients(NamedTuple):
    """Difference quotients along each coordinate, (levels, P, ..., p), the longest step first."""

    steps: np.ndarray
    forward: np.ndarray
    backward: np.ndarray
    central: np.ndarray
    noise: np.ndarray
    """What rounding does to each."""

    @classmethod
    def of(
        cls, beside: np.ndarray, base: np.ndarray, steps: np.ndarray, rounding: np.ndarray
    ) -> "Quotients":
        """Of values.

        Args:
            beside: (P, p, L, 2, ...) values at the `ends`.
            base: (P, ...) values at the points.
            steps: (P, p, L, 2) as `ends` has them.
            rounding: (P, ...) the rounding scale of the values.
        """
        eps = float(jnp.finfo(beside.dtype).eps)
        high, low = np.moveaxis(beside.astype(np.float64), (3, 2, 1), (0, 1, -1))
        up, down = np.moveaxis(np.where(steps > 0, steps, np.nan), (3, 2, 1), (0, 1, -1))
        shape = up.shape[:2] + (1,) * (base.ndim - 1) + up.shape[2:]
        up, down = up.reshape(shape), down.reshape(shape)
        here, rounding = base.astype(np.float64)[..., None], rounding[..., None]
        size = np.maximum(np.abs(high) + np.abs(low), rounding)
        noise = eps * size / np.minimum(up, down)
        return cls(
            np.broadcast_to(np.minimum(up, down), high.shape),
            (high - here) / up,
            (here - low) / down,
            (high - low) / (up + down),
            np.where(np.isfinite(noise), noise, np.inf),
        )

    def and_then(self, finer: "Quotients") -> "Quotients":
        """These, followed by those of shorter steps."""
        return Quotients(*(np.concatenate(pair) for pair in zip(self, finer, strict=True)))


class Slopes(NamedTuple):
    """Numerical derivatives, (P, ..., p)."""

    value: Any
    error: Any
    left: Any
    left_error: Any
    right: Any
    right_error: Any
    doubted: Any
    """Whether shorter steps could tell more."""
    kink: Any
    """Whether left and right derivative differ."""
    jump: Any
    """Whether there is no derivative."""


def slopes(usual: Quotients) -> Slopes:
    """Derivatives, by extrapolation of quotients with the steps `USUAL`."""
    value, error = extrapolated(usual.central, usual.noise, 4, np)
    left, below = extrapolated(usual.backward, usual.noise, 2, np)
    right, above = extrapolated(usual.forward, usual.noise, 2, np)
    uncertain = np.isfinite(error) & (error > _UNCERTAIN * usual.noise[-1])
    no = np.zeros(error.shape, bool)
    found = Slopes(value, error, left, below, right, above, uncertain, no, no)
    return found._replace(doubted=uncertain | _are_apart(found))


def _are_apart(found: Slopes) -> np.ndarray:
    error = found.left_error + found.right_error
    return np.isfinite(error) & ~(np.abs(found.right - found.left) <= _APART * error)


def refined(first: Slopes, q: Quotients, where: np.ndarray, multiple: float) -> Slopes:
    """What shorter steps tell of derivatives that are in doubt.

    Args:
        first: what the usual steps tell.
        q: quotients with the steps `USUAL` and `FINE`.
        where: (P, ..., p) what is in doubt.
        multiple: of the noise, what is larger than that is none.
    """
    noise, change = 2 * multiple * q.noise, q.forward - q.backward
    kink = where & _is_constant(change, noise, np.ones(()))
    jump = where & ~kink & _is_constant(np.abs(q.forward) + np.abs(q.backward), noise, q.steps)
    differ = np.abs(np.diff(q.central, axis=0, append=np.nan))
    bound = np.abs(change) + differ + q.noise
    bound = np.where(np.isfinite(bound), bound, np.inf)
    best = LEVELS + np.argmin(bound[LEVELS:], axis=0)[None]
    value, error = (np.take_along_axis(a, best, axis=0)[0] for a in (q.central, bound))
    refuted = ~(np.abs(value - first.value) <= _APART * error) | _are_apart(first)
    better = where & ~kink & ~jump & (refuted | (error < first.error))
    return Slopes(
        np.where(better, value, first.value),
        np.where(better, error, first.error),
        *_one_side(q.backward, q.noise, first.left, first.left_error),
        *_one_side(q.forward, q.noise, first.right, first.right_error),
        first.doubted,
        kink,
        jump,
    )


def _is_constant(size: np.ndarray, noise: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Whether, times what is given, a quotient is constant for the shortest steps that show it.

    If it were, and the next step could show it, too, it would be among these.
    """
    levels, visible = len(size), np.abs(size) > noise  # NaN is not
    last = levels - 1 - np.argmax(visible[::-1], axis=0)

    def at(a: np.ndarray, level: np.ndarray) -> np.ndarray:
        return np.take_along_axis(a, np.clip(level, 0, levels - 1)[None], axis=0)[0]

    scaled, lost = size * times, noise * times
    ratios = np.stack([at(scaled, last - k) / at(scaled, last) for k in (1, 2)])
    constant = np.all((ratios <= _CONSTANT) & (ratios >= 1 / _CONSTANT), axis=0)
    ends = (last < levels - 1) & (np.abs(at(scaled, last)) >= 2 * at(lost, last + 1))
    return np.any(visible, axis=0) & (last >= 2) & constant & ~ends


def _one_side(
    quotients: np.ndarray, noise: np.ndarray, limit: np.ndarray, error: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The better of an extrapolated derivative and of the quotient most like its neighbours."""
    steps = np.abs(np.diff(quotients, axis=0))
    wrong = np.maximum(steps[1:], steps[:-1]) + noise[1:-1]
    wrong = np.where(np.isfinite(wrong), wrong, np.inf)
    best = np.argmin(wrong, axis=0)[None]
    like = np.take_along_axis(wrong, best, axis=0)[0]
    value = np.take_along_axis(quotients, best + 1, axis=0)[0]
    return np.where(like < error, value, limit), np.minimum(like, error)
