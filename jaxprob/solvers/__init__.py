"""How a model is fitted: one algorithm per file, one driver."""

from jaxprob.problem.problem import Problem as Problem
from jaxprob.solvers.choice import choice as choice
from jaxprob.solvers.closed_form import closed_form as closed_form
from jaxprob.solvers.driver import Trace as Trace
from jaxprob.solvers.driver import run as run
from jaxprob.solvers.em import em as em
from jaxprob.solvers.gradient import gradient as gradient
from jaxprob.solvers.lbfgs import lbfgs as lbfgs
from jaxprob.solvers.minibatch_em import MinibatchFit as MinibatchFit
from jaxprob.solvers.minibatch_em import minibatch_em as minibatch_em
from jaxprob.solvers.newton import newton as newton
from jaxprob.solvers.proximal import proximal as proximal
