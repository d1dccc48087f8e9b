"""How long does a first call take, which compiles, and how many programs do many shapes need?

    python -m experiments.first_calls                   # all of its parts
    python -m experiments.first_calls --only shapes     # one of them

"calls" times the first call of each kind in a process of its own, after `import jaxprob`: with
nothing compiled before, then with the programs of another process kept (`jp.keep_programs`).
"functions" times those of a model, called outside of `jax.jit`: first, which compiles, then warm.
"shapes" fits data of hundreds of different sizes in one process and counts programs, the stretches
of memory they map, and the memory of the process. "training" times an Adam run of 3 epochs on a
network of 1,795 parameters, compiled and warm. "verifier" checks gradients of new shapes at every
call, a thousand times. Seconds are medians of --repeats processes.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from experiments import _common

CALLS = {
    "fit, 500 × 8": "jp.fit(logistic.model(), x, y)",
    "fit_many, 100 of these": "jp.fit_many(logistic.model(), x, y, weights=weights)",
    "fit_many, 1,000 of 1,000 × 8": """jp.fit_many(
        logistic.model(), np.tile(x, (2, 1)), np.tile(y, 2), weights=np.tile(weights, (10, 2))
    )""",
    "bootstrap, 1,000": "many.bootstrap(logistic.model(), x, y, key, num_replicates=1000)",
    "cross_validate, 10 × l2": "many.cross_validate(logistic.model(), x, y, key, l2=penalties)",
    "choose_l2": "many.choose_l2(logistic.model(), x, y, key)",
    "path of the lasso": "many.path(logistic.model(), x, y, l1_ratio=1.0)",
    "mixture_search, 1 to 4": "many.mixture_search(x[:, :3], key, components=(1, 2, 3, 4))",
    "dirichlet_mixture, 8": "jp.fit(dirichlet_mixture.model(8), x[:, :3])",
}
TARGETS = {  # seconds: nothing kept, programs kept
    "fit, 500 × 8": (0.8, 0.2),
    "fit_many, 100 of these": (2.5, 0.6),
    "fit_many, 1,000 of 1,000 × 8": (2.5, 0.6),
    "bootstrap, 1,000": (4, 0.8),
    "cross_validate, 10 × l2": (3.5, 0.8),
    "choose_l2": (5, 1),
    "path of the lasso": (3, 0.8),
    "mixture_search, 1 to 4": (2, 0.6),
    "dirichlet_mixture, 8": (2, 0.5),
}
_COMPILED = "/jax/core/compile/backend_compile_duration"
_CALL = """
import json, sys, time
import jax, numpy as np
import jaxprob as jp
from jaxprob import many
from jaxprob.models import dirichlet_mixture, logistic
if {folder!r}:
    jp.keep_programs({folder!r})
programs = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: programs.append(name) if name == {event!r} else None)
rng = np.random.default_rng({seed})
x = rng.normal(size=(500, 8)).astype("float32")
y = (x[:, 0] + rng.logistic(size=500) > 0).astype("int32")
weights = rng.multinomial(500, np.full(500, 1 / 500), size=100).astype("float32")
penalties = np.logspace(-2, 2, 10).astype("float32")
key = jax.random.key({seed})
start = time.perf_counter()
result = {call}
jax.block_until_ready(jax.tree.leaves(getattr(result, "fits", result)))
print(json.dumps([time.perf_counter() - start, len(programs)]))
"""


def calls_part(seed: int, repeats: int) -> list[dict[str, Any]]:
    """First calls, each in processes of its own."""
    rows = []
    for name, call in _common.progress(CALLS.items(), "first calls", len(CALLS)):

        def run(folder: str, call: str = call) -> tuple[float, int]:
            return _json(_CALL.format(folder=folder, event=_COMPILED, seed=seed, call=call))

        fresh = [run("") for _ in range(repeats)]
        with tempfile.TemporaryDirectory() as folder:
            run(folder)
            kept = [run(folder) for _ in range(repeats)]
        seconds, seconds_kept = (median(s for s, _ in runs) for runs in (fresh, kept))
        target, target_kept = TARGETS[name]
        rows.append({
            "call": name,
            "seconds": seconds,
            "target": target,
            "seconds, kept": seconds_kept,
            "target, kept": target_kept,
            "programs": fresh[0][1],
        })  # fmt: skip
    return rows


def functions_part(seed: int, repeats: int) -> list[dict[str, Any]]:
    """Functions of logistic regression outside of `jax.jit`, in float32."""
    import jax
    import jax.numpy as jnp

    from jaxprob.models import logistic

    rng, rows = np.random.default_rng(seed), []
    for n, d in ((500, 8), (200_000, 200)):
        x = jnp.asarray(rng.normal(size=(n, d)), "float32")
        y = jnp.asarray(rng.integers(0, 2, n), "int32")
        params = logistic.Params(jnp.zeros(d), jnp.zeros(()))
        functions = logistic.log_likelihood, logistic.log_likelihood_and_grad, logistic.information
        for fn in functions:

            def run(fn: Callable[..., Any] = fn, data: tuple = (params, x, y)) -> None:
                jax.block_until_ready(fn(*data))

            seconds = [_timed(run) for _ in range(3 * repeats + 1)]
            rows.append({
                "function": fn.__name__,
                "rows": n,
                "first, s": seconds[0],
                "warm, ms": 1e3 * median(seconds[1:]),
            })  # fmt: skip
    return rows


def shapes_part(seed: int, repeats: int) -> list[dict[str, Any]]:
    """Logistic fits of data of many shapes, in one process."""
    del repeats
    import jax

    import jaxprob as jp
    from jaxprob.runtime.programs import num_maps

    programs: list[str] = []

    def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
        del duration_secs, kwargs
        if event == _COMPILED:
            programs.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    rng, model, rows = np.random.default_rng(seed), jp.models.logistic.model(), []

    def fit_all(what: str, shapes: list[tuple[int, int]], target: str) -> None:
        data = []
        for n, d in shapes:
            x = rng.normal(size=(n, d)).astype("float32")
            data.append((x, (x[:, 0] + rng.logistic(size=n) > 0).astype("int32")))
        before, most, converged, start = len(programs), 0, 0, time.perf_counter()
        for x, y in _common.progress(data, what):
            converged += int(jp.fit(model, x, y).status) == jp.Status.CONVERGED
            most = max(most, num_maps())
        rows.append({
            "what": what,
            "seconds": time.perf_counter() - start,
            "programs": len(programs) - before,
            "converged": converged,
            "most maps": most,
            "GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "target": target,
        })  # fmt: skip

    fit_all("60 fits of 700, 761, … rows", [(700 + 61 * i, 8) for i in range(60)], "12 s, 12")
    fit_all("400 more of 700, 709, … rows", [(700 + 9 * i, 8) for i in range(400)], "10 s")
    every = [(n, d) for n in range(100, 4000) for d in range(1, 40)]
    some = [every[i] for i in rng.choice(len(every), 2000, replace=False)]
    fit_all("2,000 fits of 2,000 shapes", some, "40,000 maps, 3 GiB")
    return rows


def training_part(seed: int, repeats: int) -> list[dict[str, Any]]:
    """Adam on a small network, which is a model of one's own."""
    import jax
    import jax.numpy as jnp
    import optax

    import jaxprob as jp
    from jaxprob.contract import Classes, Model, Variables

    def init(key: Any, x: Any, y: Any, weights: Any = None) -> dict[str, Any]:
        del y, weights
        first, second = jax.random.split(jax.random.key(0) if key is None else key)
        return {
            "hidden": jax.random.normal(first, (x.shape[1], 32)) / x.shape[1] ** 0.5,
            "shift": jnp.zeros(32),
            "out": jax.random.normal(second, (32, 3)) / 32**0.5,
            "bias": jnp.zeros(3),
        }

    def log_prob(params: dict[str, Any], x: Any, y: Any) -> Any:
        hidden = jnp.tanh(x @ params["hidden"] + params["shift"])
        return jax.nn.log_softmax(hidden @ params["out"] + params["bias"])[y]

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1500, 52)).astype("float32")
    y = np.argmax(x[:, :3] + rng.gumbel(size=(1500, 3)), axis=1)
    model = Model("network", Variables.conditional(Classes(3)), init, log_prob)
    rows = []
    for size in (None, 64):
        batches = {} if size is None else {"batch_size": size, "key": jax.random.key(seed)}
        solver = jp.solvers.gradient(optax.adam, learning_rate=1e-2, max_steps=3, **batches)

        def run(i: int, solver: Any = solver) -> None:
            found = jp.fit(model, x, y, solver=solver, key=jax.random.key(i))
            jax.block_until_ready(found.params)

        seconds = [_timed(lambda i=i: run(i)) for i in range(5 * repeats + 1)]
        rows.append({
            "batches of": "all rows" if size is None else size,
            "first, s": seconds[0],
            "warm, ms": 1e3 * median(seconds[1:]),
            "target, ms": 5,
        })  # fmt: skip
    return rows


def verifier_part(seed: int, repeats: int) -> list[dict[str, Any]]:
    """The verifier, on a softmax regression of new shapes at every call."""
    del repeats
    import jax

    from jaxprob.models import softmax
    from jaxprob.runtime.programs import num_maps
    from jaxprob.testing import assert_gradients_match

    rng, seconds, most = np.random.default_rng(seed), [], 0

    def case(k: int, d: int) -> Callable[[], Any]:
        model = softmax.model(k)
        x, y = rng.normal(size=(30, d)), np.arange(30) % k
        shapes = jax.eval_shape(lambda: model.init(None, x, y))
        params = jax.tree.map(lambda a: rng.normal(size=a.shape), shapes)
        value, grad = model.objective.log_likelihood, model.objective.grad
        assert grad is not None
        return lambda: assert_gradients_match(value, grad, params, x, y)

    shapes = [(k, d) for k in range(3, 13) for d in range(1, 101)]
    for k, d in _common.progress(shapes, "verifier"):
        seconds.append(_timed(case(k, d)))
        most = max(most, num_maps())
    return [
        {
            "calls": len(shapes),
            "median, s": median(seconds),
            "target, s": 0.2,
            "of the last 100, s": median(seconds[-100:]),
            "most maps": most,
        }
    ]


def _timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _json(code: str) -> Any:
    """What a process of its own prints last."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


PARTS = {
    "calls": calls_part,
    "functions": functions_part,
    "shapes": shapes_part,
    "training": training_part,
    "verifier": verifier_part,
}


def main() -> None:
    """Run the parts asked for, print their tables, write first_calls.json."""
    parser = _common.parser(__doc__ or "")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; repeatable")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each timing (3)")
    args = parser.parse_args()
    asked = args.only or PARTS
    parts = {name: partial(PARTS[name], args.seed, args.repeats) for name in asked}
    _common.run_parts("first_calls", args.out, parts)


if __name__ == "__main__":
    main()
