"""Fits: from arguments to what was found."""

from jaxprob.fit.arguments import check_data_of as check_data_of
from jaxprob.fit.arguments import check_firth as check_firth
from jaxprob.fit.arguments import check_penalties as check_penalties
from jaxprob.fit.arguments import check_solver as check_solver
from jaxprob.fit.arguments import default_solver as default_solver
from jaxprob.fit.arguments import key_data as key_data
from jaxprob.fit.eager import solve as solve
from jaxprob.fit.fitting import fit as fit
from jaxprob.fit.outcome import outcome_of as outcome_of
from jaxprob.fit.plan import recentred as recentred
from jaxprob.fit.result import Fit as Fit
from jaxprob.fit.result import Source as Source
