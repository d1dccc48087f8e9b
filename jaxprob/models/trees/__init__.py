"""Parts of trees: columns as codes, growing, pruning."""

from jaxprob.models.trees.binning import MOST_BINS as MOST_BINS
from jaxprob.models.trees.binning import Binned as Binned
from jaxprob.models.trees.binning import binned as binned
from jaxprob.models.trees.growing import grown as grown
