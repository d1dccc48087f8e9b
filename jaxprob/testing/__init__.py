"""Verify derivatives that were derived by hand: ours, and anyone's."""

from jaxprob.testing.derivatives import HARD_POINTS as HARD_POINTS
from jaxprob.testing.derivatives import Check as Check
from jaxprob.testing.derivatives import Report as Report
from jaxprob.testing.derivatives import assert_gradients_match as assert_gradients_match
from jaxprob.testing.derivatives import assert_hessians_match as assert_hessians_match
from jaxprob.testing.derivatives import compare_gradients as compare_gradients
from jaxprob.testing.derivatives import compare_hessians as compare_hessians
from jaxprob.testing.numerical import numerical_jacobian as numerical_jacobian
from jaxprob.testing.rounding import rounding_scale as rounding_scale
