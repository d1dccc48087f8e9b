"""Densities of a block of features, one for each class: the parts that naive Bayes is made of.

Each is an exponential family, so what a maximum needs are sums over the examples, each of which may
have a share in several classes.
"""

from jaxprob.models.bayes.families.discrete import Bernoulli as Bernoulli
from jaxprob.models.bayes.families.discrete import Categorical as Categorical
from jaxprob.models.bayes.families.discrete import Multinomial as Multinomial
from jaxprob.models.bayes.families.discrete import curve as curve
from jaxprob.models.bayes.families.discrete import score as score
from jaxprob.models.bayes.families.family import Family as Family
from jaxprob.models.bayes.families.family import check_columns as check_columns
from jaxprob.models.bayes.families.family import check_families as check_families
from jaxprob.models.bayes.families.family import check_widths as check_widths
from jaxprob.models.bayes.families.family import columns_of as columns_of
from jaxprob.models.bayes.families.gaussian import Gaussian as Gaussian
