"""What a fit says of examples: predictions, log-probabilities, scores and draws."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxprob.contract import Model, Status, Trait, Variables
from jaxprob.data.checks import check_data, host_view
from jaxprob.data.loading import to_device
from jaxprob.fit.arguments import key_data
from jaxprob.runtime.buckets import bucket, filled
from jaxprob.runtime.compilation import eager_jit

if TYPE_CHECKING:
    from jaxprob.fit.result import Fit


def log_probs(fit: "Fit", x: Any, y: Any, offset: Any) -> Array:
    """The log-probability of each example."""
    x, y, _, offset = _checked(fit, x, y, offset, fit.model.variables)
    return _answers(fit, "log_prob", (x, y, offset))


def log_proba(fit: "Fit", x: Any, offset: Any) -> Array:
    """The log-probabilities of the classes, or of the components."""
    what = _what(fit, "classes", "components")
    return _answers(fit, what, _of_x(fit, x, offset))


def proba(fit: "Fit", x: Any, offset: Any) -> Array:
    """The probabilities of the classes, or of the components."""
    log_p = log_proba(fit, x, offset)
    # By NumPy outside of transformations: an operation of JAX is a program for each number of rows.
    return jnp.exp(log_p) if isinstance(log_p, Tracer) else to_device(np.exp(np.asarray(log_p)))


def predicted(fit: "Fit", x: Any, offset: Any) -> Any:
    """The most probable label or component, or the mean."""
    what = _what(fit, "classes", "components", "mean")
    answers = _answers(fit, what, _of_x(fit, x, offset))
    if what == "mean":
        return answers
    if isinstance(answers, Tracer):
        unknown = jnp.any(jnp.isnan(answers), axis=-1)
        return jnp.where(unknown, -1, jnp.argmax(answers, axis=-1)).astype(jnp.int32)
    host = np.asarray(answers)
    if np.isnan(host).any():
        raise ValueError(f"fit: {_unknown(host)}, so no label is the most probable")
    return fit.schema.labels(to_device(np.argmax(host, axis=-1).astype(np.int32)))


def _unknown(answers: np.ndarray) -> str:
    """Which of log-probabilities (n, K) or (B, n, K) are NaN."""
    *lane, row, _ = np.argwhere(np.isnan(answers))[0]
    if not lane:
        return f"the probabilities of row {row} are NaN"
    chosen = "jax.tree.map(lambda a: a[np.asarray(fits.usable)], fits)"
    return f"the probabilities of lane {lane[0]} are NaN; {chosen} has those that can be asked"


def score(fit: "Fit", x: Any, y: Any, weights: Any, offset: Any) -> Array:
    """The weighted mean of the log-probabilities."""
    x, y, c, offset = _checked(fit, x, y, offset, fit.model.variables, weights)
    each = _answers(fit, "log_prob", (x, y, offset))
    xp = jnp if any(isinstance(a, Tracer) for a in (each, c)) else np
    if c is None:
        mean = xp.mean(xp.asarray(each), axis=-1)
    else:
        c = xp.asarray(c)
        terms = xp.where(c > 0, c * xp.where(c > 0, xp.asarray(each), 0.0), 0.0)
        mean = xp.sum(terms, axis=-1) / xp.sum(c)
    return mean if xp is jnp else to_device(np.asarray(mean))


def drawn(fit: "Fit", key: Any, x: Any, num: Any, offset: Any) -> Any:
    """Draws of y for each row of x, of both, or of as many x as wanted."""
    _what(fit, "sample")
    if key_data(key) is None:
        raise TypeError("key: expected a typed PRNG key, such as jax.random.key(0), got None")
    alone = fit.model.variables.y is None
    if num is not None and (isinstance(num, bool) or not isinstance(num, int | np.integer)):
        raise TypeError(f"num: expected a whole number, got {num!r}")
    if num is not None and num < 0:
        raise ValueError(f"num: expected at least 0, got {num}")
    if alone:
        if num is None or x is not None:
            raise ValueError(
                f"num: expected how many examples to draw, and no x, since {fit.model.name} is a "
                "density of x; pass num=1000, say"
            )
        return _answers(fit, "sample", (None, None, None), key, int(num))
    if x is None:
        raise ValueError("x: expected features (n, d), for each row of which y is drawn, got None")
    return _answers(fit, "sample", _of_x(fit, x, offset), key, None if num is None else int(num))


def _what(fit: "Fit", *names: str) -> str:
    """The first of some predictions that the model makes."""
    predict = fit.model.predict
    found = next((name for name in names if getattr(predict, name) is not None), None)
    if found is None:
        words = {"classes": "classes", "components": "components", "mean": "means"}
        what = " or ".join(words.get(name, "draws") for name in names)
        raise TypeError(f"{fit.model.name} predicts no {what}; ask for fit.log_prob(...)")
    return found


def _of_x(fit: "Fit", x: Any, offset: Any) -> tuple:
    variables = fit.model.variables
    given = tuple(pair for pair in (*variables.of, *variables.given) if pair[0] != "y")
    x, _, _, offset = _checked(fit, x, None, offset, Variables(given))
    return x, None, offset


def _checked(
    fit: "Fit", x: Any, y: Any, offset: Any, variables: Variables, weights: Any = None
) -> tuple[Array, Array | None, Array | None, Array | None]:
    """Examples in the order of the columns that were fitted, and labels as numbers."""
    status = fit.status
    if not isinstance(status, Tracer) and np.all(np.asarray(status) == Status.INVALID_INPUT):
        raise ValueError("fit: its input was invalid, so it predicts nothing; see fit.report()")
    return check_data(x, y, weights, offset, variables=variables, fitted=fit.schema)[:4]


def _answers(fit: "Fit", what: str, asked: tuple, key: Any = None, num: int | None = None) -> Any:
    """What the model says of (x, y, offset), from one program for each bucket of n.

    With a lane axis in front for many fits.
    """
    settings = {"model": fit.model, "what": what, "num": num}
    many = jnp.ndim(fit.status) == 1
    if Trait.SUM not in fit.model.offers and many:  # each made of its own examples
        lanes = range(len(fit.status))
        keys = [None] * len(lanes) if key is None else jax.random.split(key, len(lanes))
        each = [_answers(fit.lane(i), what, asked, keys[i], num) for i in lanes]
        return jax.tree.map(lambda *a: jnp.stack(a), *each)
    made_of = ()
    if Trait.SUM not in fit.model.offers:
        rows = fit._source(what).rows
        c = jnp.ones(len(rows.x), rows.x.dtype) if rows.weights is None else rows.weights
        made_of = (*rows.examples, c)
    if many and key is not None:
        key = jax.random.split(key, len(fit.status))
    status = fit.status if isinstance(fit.status, Tracer) else np.asarray(fit.status)
    valid = status != Status.INVALID_INPUT
    x, arguments = asked[0], (fit.params, valid, asked, made_of, key)
    if any(isinstance(a, Tracer) for a in jax.tree.leaves(arguments)):
        return _program(*arguments, many=many, **settings)
    if x is None or what == "sample":
        return _compiled(*arguments, many=many, **settings)
    n, views = len(x), [None if a is None else host_view(a) for a in asked]
    size = bucket(n, x.shape[1] * x.dtype.itemsize)
    if n == 0 or any((a is None) != (v is None) for a, v in zip(asked, views, strict=True)):
        return _compiled(*arguments, many=many, **settings)
    asked = tuple(None if v is None else filled(v, size) for v in views)
    answers = np.asarray(_compiled(fit.params, valid, asked, made_of, key, many=many, **settings))
    return to_device(answers[:, :n] if many else answers[:n])


def _program(
    params: Any,
    valid: Array,
    asked: tuple,
    made_of: tuple,
    key: Any,
    *,
    model: Model,
    what: str,
    num: int | None,
    many: bool,
) -> Any:
    if many:
        one = {"model": model, "what": what, "num": num, "many": False}

        def of_lane(params: Any, valid: Array, key: Any) -> Any:
            return _program(params, valid, asked, made_of, key, **one)

        return jax.vmap(of_lane)(params, valid, key)
    answers = _answered(params, asked, made_of, key, model, what, num)
    return jax.tree.map(lambda a: jnp.where(valid, a, _nothing(a)), answers)


def _nothing(a: Array) -> Array:
    """What stands for no answer."""
    return jnp.asarray(jnp.nan if jnp.issubdtype(a.dtype, jnp.floating) else -1, a.dtype)


def _answered(
    params: Any, asked: tuple, made_of: tuple, key: Any, model: Model, what: str, num: int | None
) -> Any:
    x, y, offset = asked
    extras = {} if offset is None else {"offset": offset}
    if what == "log_prob":
        examples = (x,) if y is None else (x, y)
        return model.log_probs(params, *examples, made_of=made_of, **extras)
    answer = getattr(model.predict, what)
    if what != "sample":
        return answer(params, x, *made_of, **extras)
    if x is None:
        return answer(params, key, num, *made_of)
    if num is None:
        return answer(params, key, x, *made_of, **extras)
    keys = jax.random.split(key, num)
    return jax.vmap(lambda key: answer(params, key, x, *made_of, **extras))(keys)


_compiled = eager_jit(_program, static_argnames=["model", "what", "num", "many"])
