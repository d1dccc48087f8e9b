"""A model is a log-likelihood written as a pure function; everything else transforms it."""

from jaxprob import data as data
from jaxprob import many as many
from jaxprob import models as models
from jaxprob import numerics as numerics
from jaxprob import solvers as solvers
from jaxprob import testing as testing
from jaxprob.contract import Status as Status
from jaxprob.files import load as load
from jaxprob.files import save as save
from jaxprob.fit import Fit as Fit
from jaxprob.fit import fit as fit
from jaxprob.fit.report import Report as Report
from jaxprob.fit.report import report as report
from jaxprob.many import fit_many as fit_many
from jaxprob.reports import plots as plots
from jaxprob.reports.summary import Summary as Summary
from jaxprob.reports.summary import summary as summary
from jaxprob.runtime.devices import use_all_cores as use_all_cores
from jaxprob.runtime.programs import keep_programs as keep_programs
from jaxprob.uncertainty import sensitivity as sensitivity
