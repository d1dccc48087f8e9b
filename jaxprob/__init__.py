"""A model is a log-likelihood written as a pure function; everything else transforms it."""

from jaxprob import data as data
from jaxprob import many as many
from jaxprob import models as models
from jaxprob import numerics as numerics
from jaxprob import plots as plots
from jaxprob import sensitivity as sensitivity
from jaxprob import solvers as solvers
from jaxprob import testing as testing
from jaxprob.contract import Status as Status
from jaxprob.devices import use_all_cores as use_all_cores
from jaxprob.fit import Fit as Fit
from jaxprob.fit import fit as fit
from jaxprob.many import fit_many as fit_many
from jaxprob.report import Report as Report
from jaxprob.report import report as report
from jaxprob.runtime.programs import keep_programs as keep_programs
from jaxprob.summary import Summary as Summary
from jaxprob.summary import summary as summary
