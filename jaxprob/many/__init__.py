"""Many fits in one call."""

from jaxprob.many.fitting import fit_many as fit_many
from jaxprob.many.running import Interrupted as Interrupted
