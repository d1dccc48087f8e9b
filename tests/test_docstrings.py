"""No public function without a docstring that says what a caller needs."""

import importlib
import inspect
import pkgutil

import pytest

import jaxprob

MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(jaxprob.__path__, "jaxprob.")
    if not found.name.rpartition(".")[2].startswith("_")
]
INTERNAL = {
    "jaxprob.models.kernels.density",
    "jaxprob.data.checks",
    "jaxprob.fit.arguments",
    "jaxprob.fit.asking",
    "jaxprob.fit.eager",
    "jaxprob.fit.outcome",
    "jaxprob.fit.plan",
    "jaxprob.fit.result",
    "jaxprob.fit.traced",
    "jaxprob.many.engine.arguments",
    "jaxprob.many.resampling.table_of",
    "jaxprob.many.resampling.problem_of",
    "jaxprob.many.resampling.resampled",
    "jaxprob.many.resampling.live_of",
    "jaxprob.many.engine.lanes",
    "jaxprob.many.engine.neighbours",
    "jaxprob.many.engine.running",
    "jaxprob.many.engine.schedule",
    "jaxprob.contract.model",
    "jaxprob.contract.objective",
    "jaxprob.contract.variables",
    "jaxprob.models.regression.certificates",
    "jaxprob.models.kernels.sums.in_blocks",
    "jaxprob.models.regression.predictors",
    "jaxprob.models.regression.separation",
    "jaxprob.models.kernels.blocks",
    "jaxprob.models.kernels.distances",
    "jaxprob.models.mixtures.dirichlet.density",
    "jaxprob.models.mixtures.gaussian.density",
    "jaxprob.models.mixtures.gaussian.features",
    "jaxprob.models.mixtures.gaussian.starts",
    "jaxprob.models.mixtures.gaussian.sums",
    "jaxprob.models.kernels.queries.check_one",
    "jaxprob.models.kernels.queries.matrix",
    "jaxprob.models.kernels.queries.of_spread",
    "jaxprob.models.mixtures.dirichlet.parameters.places",
    "jaxprob.models.mixtures.dirichlet.parameters.of_components",
    "jaxprob.models.mixtures.gaussian.parameters.is_diagonal",
    "jaxprob.models.mixtures.gaussian.parameters.sharing",
    "jaxprob.models.mixtures.gaussian.parameters.factor_diagonals",
    "jaxprob.models.mixtures.gaussian.parameters.factor_matrices",
    "jaxprob.models.mixtures.gaussian.parameters.of_covariance",
    "jaxprob.models.mixtures.gaussian.parameters.summed_where_shared",
    "jaxprob.models.mixtures.gaussian.parameters.diagonal",
    "jaxprob.models.mixtures.gaussian.parameters.or_one",
    "jaxprob.models.mixtures.gaussian.steps.prior_scatter",
    "jaxprob.models.trees.out_of_bag.bootstrap_key",
    "jaxprob.models.trees.out_of_bag.proba",
    "jaxprob.models.trees.out_of_bag.own",
    "jaxprob.models.trees.parameters.log_proba",
    "jaxprob.models.trees.parameters.leaf_log_proba",
    "jaxprob.models.trees.parameters.maximal",
    "jaxprob.models.trees.parameters.divergence",
    "jaxprob.models.trees.parameters.with_questions",
    "jaxprob.models.trees.parameters.as_labels",
    "jaxprob.models.trees.settings.rounding_of",
    "jaxprob.problem.rows",
    "jaxprob.solvers.driver",
    "jaxprob.numerics.linalg",
    "jaxprob.runtime.programs.kept_in",
    "jaxprob.runtime.programs.num_maps",
    "jaxprob.solvers.plain_newton",
    "jaxprob.problem.jeffreys",
    "jaxprob.solvers.linesearch",
    "jaxprob.solvers.newton.judge",
    "jaxprob.problem.problem",
    "jaxprob.solvers.quasi_newton",
    "jaxprob.testing.judging",
    "jaxprob.testing.kinks",
    "jaxprob.testing.program",
    "jaxprob.testing.rounding",
}
"""Modules for those who write models and solvers: docstrings, but no doctested examples."""


def public(module):
    for name, thing in vars(module).items():
        own = getattr(thing, "__module__", None) == module.__name__
        if own and not name.startswith("_") and callable(thing):
            yield f"{module.__name__}.{name}", thing


FUNCTIONS = {
    name: thing
    for module in MODULES
    for name, thing in public(module)
    if not inspect.isclass(thing) and name not in INTERNAL and module.__name__ not in INTERNAL
}
EVERYTHING = {name: thing for module in MODULES for name, thing in public(module)}


@pytest.mark.parametrize("name", EVERYTHING)
def test_everything_public_is_described(name):
    text = inspect.getdoc(EVERYTHING[name]) or ""
    assert text.partition("\n")[0].rstrip().endswith((".", ":", ")")), text[:80]
    assert not text.startswith(EVERYTHING[name].__name__ + "("), "a generated signature"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_arguments_result_and_example(name):
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    signature = inspect.signature(FUNCTIONS[name])
    described = text.partition("Args:")[2].partition("Returns:")[0]
    for argument in signature.parameters:
        assert f"{argument}:" in described or f"{argument}," in described, f"{argument} is missing"
    returns_something = signature.return_annotation is not None
    assert ("Returns:" in text) == returns_something
    assert ">>> " in text


@pytest.mark.parametrize("module", ["logistic", "softmax", "naive_bayes", "gaussian_mixture"])
def test_models_name_equations_units_and_source(module):
    code = getattr(jaxprob.models, module)
    assert "Source:" in code.__doc__
    names = ["log_prob", "log_likelihood", "grad_log_likelihood", "sample"]
    for name in names + ["information"] * hasattr(code, "information"):
        text = inspect.getdoc(getattr(code, name))
        assert "equation" in text, name
        if name.startswith("log") or name.startswith("grad"):
            assert "nats" in text, name


CHOSEN = "dirichlet_mixture", "kernel_density", "knn_density", "knn_classifier"


@pytest.mark.parametrize("module", [*CHOSEN, "decision_tree", "random_forest"])
def test_other_models_name_equations_units_and_source(module):
    code = getattr(jaxprob.models, module)
    assert "Source:" in code.__doc__
    for name in ("log_prob", "log_likelihood"):
        text = inspect.getdoc(getattr(code, name))
        assert "equation" in text, name
        assert "nats" in text, name


SOLVERS = "newton", "lbfgs", "gradient", "proximal", "closed_form", "em", "minibatch_em"


@pytest.mark.parametrize("module", SOLVERS)
def test_solvers_name_their_source(module):
    assert "Source:" in importlib.import_module(f"jaxprob.solvers.{module}").__doc__
