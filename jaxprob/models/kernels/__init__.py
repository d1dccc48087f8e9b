"""Kernel density estimation: kernels, sums over pairs, bandwidths, and estimates on a grid."""

from jaxprob.models.kernels.bandwidth import isj as isj
from jaxprob.models.kernels.bandwidth import scott as scott
from jaxprob.models.kernels.bandwidth import silverman as silverman
from jaxprob.models.kernels.binned import Grid as Grid
from jaxprob.models.kernels.binned import binned_density as binned_density
from jaxprob.models.kernels.binned import error_bound as error_bound
from jaxprob.models.kernels.binned import grid_shape as grid_shape
from jaxprob.models.kernels.binned import interpolate as interpolate
from jaxprob.models.kernels.curvature import (
    leave_one_out_information as leave_one_out_information,
)
from jaxprob.models.kernels.factor import Bandwidth as Bandwidth
from jaxprob.models.kernels.factor import inverse_factor as inverse_factor
from jaxprob.models.kernels.kernel import COMPACT as COMPACT
from jaxprob.models.kernels.kernel import KERNELS as KERNELS
from jaxprob.models.kernels.kernel import log_kernel as log_kernel
from jaxprob.models.kernels.kernel import log_kernel_slope as log_kernel_slope
from jaxprob.models.kernels.kernel import log_normaliser as log_normaliser
from jaxprob.models.kernels.kernel import log_shape as log_shape
from jaxprob.models.kernels.kernel import shape as shape
from jaxprob.models.kernels.sums import grad_log_density as grad_log_density
from jaxprob.models.kernels.sums import leave_one_out as leave_one_out
from jaxprob.models.kernels.sums import leave_one_out_and_grad as leave_one_out_and_grad
from jaxprob.models.kernels.sums import log_density as log_density
