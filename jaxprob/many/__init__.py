"""Many fits in one call."""

from jaxprob.many.fitting import fit_many as fit_many
from jaxprob.many.resampling import Bootstrap as Bootstrap
from jaxprob.many.resampling import Jackknife as Jackknife
from jaxprob.many.resampling import bootstrap as bootstrap
from jaxprob.many.resampling import jackknife as jackknife
from jaxprob.many.running import Interrupted as Interrupted
