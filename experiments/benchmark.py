"""Is it fast? One warm fit against the fastest peer, on the same data in one process.

    python -m experiments.benchmark                    # everything, about ten minutes
    python -m experiments.benchmark --only logistic    # one part

Parts: logistic and softmax (one warm fit against scikit-learn and glum, and without a penalty
against statsmodels, at an objective as good as theirs), gradient (value and hand-derived gradient
against `jax.value_and_grad`), process (from start to result, imports and compilation included),
import, memory (peak of one large fit), compilations.

Times are medians after a warm-up, ours and theirs in turn. Every JAX program here starts with
`jaxprob.use_all_cores()`. "sharded" is a fit of rows put on all cores with `jaxprob.data.shard`
beforehand, as one puts data on a GPU; "plain" is a fit of an ordinary array.
"""

import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from experiments import _common

SHAPES = ((200_000, 200), (200_000, 50), (20_000, 50), (1_000, 20))
_LONG, _VERY_LONG = 1.0, 10.0  # seconds
TARGETS = {200_000: 3.0, 20_000: 2.0, 1_000: 1.0}


def logistic_data(n: int, d: int, dtype: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian features, log-odds of standard deviation 2."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)).astype(dtype)
    w = rng.standard_normal(d) * 2 / np.sqrt(d)
    y = (rng.random(n) < 1 / (1 + np.exp(-(x @ w + 0.3)))).astype(np.int32)
    return x, y


def softmax_data(n: int, d: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian features, logits of standard deviation 2."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    z = x @ (rng.standard_normal((d, k)) * 2 / np.sqrt(d)) + rng.gumbel(size=(n, k))
    return x, np.argmax(z, axis=1).astype(np.int32)


def in_turn(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each call, the calls taking turns.

    Each turn is two runs, of which the second counts: the first one's caches are full of other
    data, and its cores may still be busy with the threads of the last call. That matters little to
    what takes longer than _LONG seconds, which runs once a turn; _VERY_LONG, once in all.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    once: dict[str, float] = {}
    for name, call in calls.items():
        start = time.perf_counter()
        call()
        once[name] = time.perf_counter() - start
    again = {n: c for n, c in calls.items() if once[n] < _VERY_LONG or n.startswith("jaxprob")}
    for _ in range(repeats):
        for name, call in again.items():
            if once[name] < _LONG or name.startswith("jaxprob"):
                call()
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(t)) if t else once[name] for name, t in times.items()}


def objective(x: np.ndarray, y: np.ndarray, coef: np.ndarray, bias: np.ndarray, l2: float) -> tuple:
    """The penalised negative log-likelihood of a symmetric softmax or a logistic fit, and max |g|.

    In float64 whatever the fit was in: coef is (K, d), or (1, d) for two classes.
    """
    coef, bias = np.asarray(coef, np.float64), np.asarray(bias, np.float64)
    z = np.asarray(x, np.float64) @ coef.T + bias
    if len(coef) == 1:
        z = np.concatenate([np.zeros_like(z), z], axis=1)
    z -= z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    value = -log_p[np.arange(len(y)), y].sum() + l2 / 2 * (coef**2).sum()
    residual = np.exp(log_p)
    residual[np.arange(len(y)), y] -= 1
    residual = residual[:, 1:] if len(coef) == 1 else residual
    grad = residual.T @ np.asarray(x, np.float64) + l2 * coef
    return float(value), float(max(np.abs(grad).max(), np.abs(residual.sum(axis=0)).max()))


def statsmodels_fit(x: np.ndarray, y: np.ndarray) -> tuple:
    """The coefficients and the intercept of a fit without a penalty."""
    from statsmodels.discrete.discrete_model import Logit
    from statsmodels.tools import add_constant

    fitted: Any = Logit(y, add_constant(x)).fit(method="newton", tol=1e-10, disp=False)
    return fitted.params[None, 1:], fitted.params[:1]


def peers(x: np.ndarray, y: np.ndarray, *, binary: bool) -> dict[str, Callable[[], tuple]]:
    """Each peer's fit with l2 = 1 as a call that returns coefficients and intercepts."""
    from sklearn.linear_model import LogisticRegression

    def sklearn_fit(solver: str) -> tuple:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "failed to converge" shows in its gradient norm here
            fitted = LogisticRegression(C=1.0, solver=solver, tol=1e-8, max_iter=1000).fit(x, y)
        return fitted.coef_, fitted.intercept_

    calls: dict[str, Callable[[], tuple]] = {
        f"scikit-learn {s}": lambda s=s: sklearn_fit(s) for s in ("lbfgs", "newton-cholesky")
    }
    if binary:
        from glum import GeneralizedLinearRegressor

        def glum_fit() -> tuple:
            fitted = GeneralizedLinearRegressor(
                family="binomial",
                alpha=1 / len(y),
                l1_ratio=0,
                gradient_tol=1e-10 if x.dtype == np.float64 else 1e-6,
                max_iter=20,
            ).fit(x, y)
            return fitted.coef_[None], np.atleast_1d(fitted.intercept_)

        calls["glum"] = glum_fit
    return calls


def compare(
    label: str,
    x: np.ndarray,
    y: np.ndarray,
    model: Any,
    target: float,
    repeats: int,
    *,
    penalised: bool = True,
) -> list[dict]:
    """Rows for one data set: ours, plain and sharded, against each peer.

    With l2 = 1, or without a penalty against statsmodels, which has none of that kind.
    """
    import jax
    import jax.numpy as jnp

    import jaxprob as jp

    plain = jnp.asarray(x), jnp.asarray(y)
    sharded = jp.data.shard(*plain)
    jax.block_until_ready(sharded.x)
    fits: dict[str, Any] = {}
    l2 = 1.0 if penalised else None

    def ours(name: str, *args: Any, **kwargs: Any) -> None:
        fits[name] = jp.fit(model, *args, l2=l2, **kwargs)
        jax.block_until_ready(fits[name].params)

    calls: dict[str, Callable[[], Any]] = {
        "jaxprob plain": lambda: ours("jaxprob plain", *plain),
        "jaxprob sharded": lambda: ours(
            "jaxprob sharded", sharded.x, sharded.y, weights=sharded.weights
        ),
    }
    binary = model.variables.num_classes == 2
    results: dict[str, tuple] = {}
    others = {"statsmodels newton": partial(statsmodels_fit, x, y)}
    for name, call in (peers(x, y, binary=binary) if penalised else others).items():
        calls[name] = lambda name=name, call=call: results.__setitem__(name, call())
    seconds = in_turn(calls, repeats)
    fastest = min(seconds[name] for name in results)
    rows = []
    for name, time_taken in seconds.items():
        if name in fits:
            params = fits[name].params
            status = jp.Status(int(fits[name].status)).name
            coef, bias = np.atleast_2d(params.weights), np.atleast_1d(params.bias)
        else:
            (coef, bias), status = results[name], ""
        value, grad_norm = objective(x, y, coef, bias, l2 or 0.0)
        rows.append(
            {
                "data": label,
                "dtype": x.dtype.name,
                "fit": name,
                "milliseconds": 1e3 * time_taken,
                "times as fast as the fastest peer": fastest / time_taken,
                "target": target if name in fits else None,
                "objective": value,
                "largest gradient entry": grad_norm,
                "status": status,
            }
        )
    return rows


def logistic_part(seed: int, repeats: int) -> list[dict]:
    """Logistic fits of all shapes in both dtypes."""
    from jaxprob.models import logistic

    rows = []
    for n, d in SHAPES:
        for dtype in ("float64", "float32"):
            x, y = logistic_data(n, d, dtype, seed)
            count = repeats if n >= 200_000 else 4 * repeats + 1
            rows += compare(f"{n:,} × {d}", x, y, logistic.model(), TARGETS[n], count)
        x, y = logistic_data(n, d, "float64", seed)
        label = f"{n:,} × {d}, no penalty"
        rows += compare(label, x, y, logistic.model(), TARGETS[n], repeats, penalised=False)
    return rows


def softmax_part(seed: int, repeats: int) -> list[dict]:
    """Softmax fits: digits, and a larger synthetic set."""
    from sklearn.datasets import load_digits

    from jaxprob.models import softmax

    model = softmax.model(10, parameterisation="symmetric")
    digits: Any = load_digits()
    x, y = digits.data, digits.target.astype(np.int32)
    rows = compare("digits", x, y, model, 3.0, repeats)
    x, y = softmax_data(50_000, 100, 10, seed)
    return rows + compare("50,000 × 100, K = 10", x, y, model, 3.0, repeats)


def gradient_part(seed: int, repeats: int) -> list[dict]:
    """Value and hand-derived gradient against automatic differentiation of the plain formula."""
    import jax
    import jax.numpy as jnp

    import jaxprob as jp
    from jaxprob.models import logistic
    from jaxprob.problem.problem import Problem, Rows, Shards, block_bytes

    def plain(theta: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        z = x @ theta[:-1] + theta[-1]
        return jnp.sum(jnp.logaddexp(0.0, z) - y * z)

    automatic = jax.jit(jax.value_and_grad(plain))
    ours = jax.jit(lambda problem, theta: problem.value_and_grad(theta))
    rows = []
    for dtype in ("float64", "float32"):
        x, y = (jnp.asarray(a) for a in logistic_data(200_000, 200, dtype, seed))
        theta = jnp.asarray(np.random.default_rng(seed).standard_normal(201) / 14, dtype)
        data = jp.data.shard(x, y)
        plain_rows, sharded_rows = Rows(x, y, None, None), Rows(*data[:4])
        place: Any = data.x.sharding
        shards = Shards(place.mesh, "rows")
        model = logistic.model()
        one, many = (
            Problem(rows, None, None, model, False, where, block_bytes(rows.x, where))
            for rows, where in ((plain_rows, None), (sharded_rows, shards))
        )
        programs = {
            "jax.value_and_grad, plain": (automatic, theta, x, y),
            "jax.value_and_grad, sharded": (automatic, theta, data.x, data.y),
            "hand-derived, plain": (ours, one, theta),
            "hand-derived, sharded": (ours, many, theta),
        }
        calls = {name: partial(_ready, *program) for name, program in programs.items()}
        seconds = in_turn(calls, 4 * repeats + 1)
        fastest = min(t for name, t in seconds.items() if name.startswith("jax."))
        rows += [
            {
                "dtype": dtype,
                "what": name,
                "milliseconds": 1e3 * t,
                "times as fast as automatic": fastest / t,
                "target": 2.0 if name.startswith("hand") else None,
            }
            for name, t in seconds.items()
        ]
    return rows


def _ready(fn: Callable[..., Any], *args: Any) -> None:
    import jax

    jax.block_until_ready(fn(*args))


_DATA = """
import time; start = time.perf_counter()
import numpy as np
rng = np.random.default_rng(0)
x = rng.standard_normal((200_000, 200)); w = rng.standard_normal(200) * 2 / np.sqrt(200)
y = (rng.random(200_000) < 1 / (1 + np.exp(-(x @ w + 0.3)))).astype(np.int32)
made = time.perf_counter()
"""
_PROCESSES = {
    "jaxprob": """
import jaxprob as jp, jax
jp.use_all_cores(); jax.config.update("jax_enable_x64", True)
fit = jp.fit(jp.models.logistic.model(), x, y, l2=1.0)
assert int(fit.status) == jp.Status.CONVERGED, fit.status
jax.block_until_ready(fit.params)
""",
    "scikit-learn": """
from sklearn.linear_model import LogisticRegression
LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(x, y)
""",
}
_KEPT = _PROCESSES["jaxprob"].replace("\n", "\nimport jaxprob as jp; jp.keep_programs({!r})\n", 1)
_REPORT = "\nprint(made - start, time.perf_counter() - made)"


def process_part(seed: int, repeats: int) -> list[dict]:
    """From the start of Python to the result, less the time to make the data."""
    with tempfile.TemporaryDirectory() as folder:
        kept = _KEPT.format(folder)
        _python(_DATA + kept)  # which compiles what the others find
        processes = {**_PROCESSES, "jaxprob, programs kept": kept}
        times: dict[str, list[float]] = {name: [] for name in processes}
        for _ in range(repeats):
            for name, code in processes.items():
                start = time.perf_counter()
                out = _python(_DATA + code + _REPORT)
                times[name].append(time.perf_counter() - start - float(out.split()[0]))
    rows = [{"process": name, "seconds": float(np.median(t))} for name, t in times.items()]
    for row in rows:
        row["times as fast as scikit-learn"] = rows[1]["seconds"] / row["seconds"]
    return rows


def import_part(seed: int, repeats: int) -> list[dict]:
    """What `import jaxprob` adds to `import jax`."""
    code = "import time; s = time.perf_counter(); import {}; print(time.perf_counter() - s)"
    times = {"jax": [], "jax, jaxprob": []}
    for _ in range(2 * repeats + 1):
        for name, seconds in times.items():
            seconds.append(float(_python(code.format(name))))
    jax_alone, both = (float(np.median(t)) for t in times.values())
    return [{"import jax": jax_alone, "import jaxprob beyond it": both - jax_alone, "target": 0.4}]


_MEMORY = """
import resource, sys
import jaxprob as jp, jax, jax.numpy as jnp
jp.use_all_cores(); jax.config.update("jax_enable_x64", True)
n, d = 200_000, 200
@jax.jit
def make(key):
    x = jax.random.normal(key, (n, d))
    z = x @ (jax.random.normal(jax.random.fold_in(key, 1), (d,)) * 2 / d**0.5) + 0.3
    return x, (jax.random.logistic(jax.random.fold_in(key, 2), (n,)) < z).astype(jnp.int32)
data = make(jax.random.key(1))  # compiles, which takes memory of its own
jax.block_until_ready(jp.fit(jp.models.logistic.model(), *data, l2=1.0).params)
del data
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
before = resident()
x, y = jax.block_until_ready(make(jax.random.key(0)))
open("/proc/self/clear_refs", "w").write("5")
fit = jax.block_until_ready(jp.fit(jp.models.logistic.model(), x, y, l2=1.0).params)
with open("/proc/self/status") as file:
    peak = next(int(l.split()[1]) * 1024 for l in file if l.startswith("VmHWM"))
print((peak - before) / x.nbytes)
"""


def memory_part(seed: int, repeats: int) -> list[dict]:
    """Peak memory of a warm fit of 200,000 × 200, inputs included, beyond the process's own."""
    return [{"peak memory, times the data": float(_python(_MEMORY)), "target": 1.5}]


def compilation_part(seed: int, repeats: int) -> list[dict]:
    """Programs compiled for five spellings of one call, and for a second learning rate."""
    import jax
    import jax.numpy as jnp
    import optax

    import jaxprob as jp

    count = [0]

    def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
        del duration_secs, kwargs
        count[0] += event.endswith("backend_compile_duration")

    jax.monitoring.register_event_duration_secs_listener(listen)
    x, y = logistic_data(317, 7, "float64", seed)
    model = jp.models.logistic.model

    def compiled(call: Callable[[], Any]) -> int:
        before = count[0]
        jax.block_until_ready(call().params)
        return count[0] - before

    jax_x, jax_y, one = jnp.asarray(x), jnp.asarray(y), jnp.asarray(1.0)
    spellings = [
        lambda: jp.fit(model(), x, y, l2=1.0),
        lambda: jp.fit(model(bias=True), jax_x, jax_y, l2=1),
        lambda: jp.fit(model(), x, y.astype(np.int64), l2=np.float64(1.0)),
        lambda: jp.fit(model(), x.tolist(), y.tolist(), l2=one),
        lambda: jp.fit(jp.models.logistic.model(), x, y.astype(bool), l2=np.float32(1.0)),
    ]

    def descent(rate: float) -> Any:
        solver = jp.solvers.gradient(optax.sgd, learning_rate=rate, max_steps=5)
        return jp.fit(model(), x, y, l2=1.0, solver=solver)

    compiled(lambda: jp.fit(model(), x[:100], y[:100], l2=1.0))  # the small programs of the checks
    first, *others = [compiled(call) for call in spellings]
    compiled(lambda: descent(0.01))
    return [
        {"what": "first spelling", "programs": first},
        {"what": "four other spellings", "programs": sum(others)},
        {"what": "a second learning rate", "programs": compiled(lambda: descent(0.02))},
    ]


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


PARTS = {
    "logistic": logistic_part,
    "softmax": softmax_part,
    "gradient": gradient_part,
    "process": process_part,
    "import": import_part,
    "memory": memory_part,
    "compilations": compilation_part,
}


def main() -> None:
    """Run the parts asked for, print their tables, write benchmark.json and a picture."""
    parser = _common.parser(__doc__ or "")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; repeatable")
    parser.add_argument("--repeats", type=int, default=7, help="of the slowest timings (7)")
    args = parser.parse_args()

    import jax

    import jaxprob as jp

    jp.use_all_cores()
    jax.config.update("jax_enable_x64", True)
    asked = args.only or PARTS
    parts = {name: partial(PARTS[name], args.seed, args.repeats) for name in asked}
    _common.run_parts("benchmark", args.out, parts)


if __name__ == "__main__":
    main()
