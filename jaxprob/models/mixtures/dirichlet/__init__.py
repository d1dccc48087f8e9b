"""Parts of Dirichlet-process mixtures: components, sticks, and a sampler of the exact posterior."""

from jaxprob.models.mixtures.dirichlet.gibbs import Samples as Samples
from jaxprob.models.mixtures.dirichlet.gibbs import gibbs as gibbs
from jaxprob.models.mixtures.dirichlet.gibbs import gibbs_log_density as gibbs_log_density
from jaxprob.models.mixtures.dirichlet.normal_wishart import Components as Components
from jaxprob.models.mixtures.dirichlet.priors import BaseMeasure as BaseMeasure
