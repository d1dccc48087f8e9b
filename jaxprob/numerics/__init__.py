"""Accurate log-space functions, and fast passes over a data matrix."""

from jaxprob.numerics.compensated import compensated_matvec as compensated_matvec
from jaxprob.numerics.counts import poisson_log_prob as poisson_log_prob
from jaxprob.numerics.counts import poisson_misfit as poisson_misfit
from jaxprob.numerics.logspace import bernoulli_log_prob as bernoulli_log_prob
from jaxprob.numerics.logspace import (
    bernoulli_log_prob_and_score as bernoulli_log_prob_and_score,
)
from jaxprob.numerics.logspace import bernoulli_score as bernoulli_score
from jaxprob.numerics.logspace import bernoulli_variance as bernoulli_variance
from jaxprob.numerics.logspace import categorical_log_prob as categorical_log_prob
from jaxprob.numerics.logspace import (
    categorical_log_prob_and_score as categorical_log_prob_and_score,
)
from jaxprob.numerics.logspace import categorical_score as categorical_score
from jaxprob.numerics.logspace import log_sigmoid as log_sigmoid
from jaxprob.numerics.logspace import log_softmax as log_softmax
from jaxprob.numerics.logspace import logsumexp as logsumexp
from jaxprob.numerics.logspace import sigmoid as sigmoid
from jaxprob.numerics.logspace import softmax as softmax
from jaxprob.numerics.logspace import two_diff as two_diff
from jaxprob.numerics.logspace import two_sum as two_sum
from jaxprob.numerics.passes import fused_pass as fused_pass
from jaxprob.numerics.passes import gram as gram
from jaxprob.numerics.passes import matvec as matvec
from jaxprob.numerics.passes import moments as moments
from jaxprob.numerics.passes import rmatvec as rmatvec
from jaxprob.numerics.passes import total as total
