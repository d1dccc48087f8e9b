"""Many fits in one call."""

from jaxprob.many import plots as plots
from jaxprob.many.choice import Choice as Choice
from jaxprob.many.choice import choose_l2 as choose_l2
from jaxprob.many.engine.running import Interrupted as Interrupted
from jaxprob.many.fitting import fit_many as fit_many
from jaxprob.many.folds import folds as folds
from jaxprob.many.groups import Groups as Groups
from jaxprob.many.groups import fit_groups as fit_groups
from jaxprob.many.leaving_out import Jackknife as Jackknife
from jaxprob.many.leaving_out import jackknife as jackknife
from jaxprob.many.mixtures import MixtureSearch as MixtureSearch
from jaxprob.many.mixtures import mixture_search as mixture_search
from jaxprob.many.path import Path as Path
from jaxprob.many.path import path as path
from jaxprob.many.path import penalties as penalties
from jaxprob.many.resampling import Bootstrap as Bootstrap
from jaxprob.many.resampling import bootstrap as bootstrap
from jaxprob.many.restarts import Restarts as Restarts
from jaxprob.many.restarts import restarts as restarts
from jaxprob.many.validation import CrossValidation as CrossValidation
from jaxprob.many.validation import cross_validate as cross_validate
