"""Checks on what comes in, and rows spread over devices."""

from jaxprob.data.arrays import as_array as as_array
from jaxprob.data.arrays import check_array as check_array
from jaxprob.data.checks import Data as Data
from jaxprob.data.checks import Violations as Violations
from jaxprob.data.checks import check_data as check_data
from jaxprob.data.checks import check_scalar as check_scalar
from jaxprob.data.checks import suffice as suffice
from jaxprob.data.checks import violations as violations
from jaxprob.data.schema import Schema as Schema
from jaxprob.data.schema import feature_names as feature_names
from jaxprob.data.shard import shard as shard
from jaxprob.data.weights import normalised_weights as normalised_weights
