"""Parts of trees: columns in order, growing, pruning, and what people read."""

from jaxprob.models.trees.binning import MOST_BINS as MOST_BINS
from jaxprob.models.trees.binning import Binned as Binned
from jaxprob.models.trees.binning import binned as binned
from jaxprob.models.trees.columns import Columns as Columns
from jaxprob.models.trees.columns import columns_of as columns_of
from jaxprob.models.trees.growing import Grown as Grown
from jaxprob.models.trees.growing import grown as grown
from jaxprob.models.trees.pruning import best_subtree as best_subtree
from jaxprob.models.trees.pruning import restricted as restricted
from jaxprob.models.trees.reading import Node as Node
from jaxprob.models.trees.reading import nodes_of as nodes_of
