"""What is assumed: one file per model, pure functions of parameters and examples."""

from jaxprob.contract import Bind as Bind
from jaxprob.contract import Classes as Classes
from jaxprob.contract import Counts as Counts
from jaxprob.contract import Model as Model
from jaxprob.contract import Real as Real
from jaxprob.contract import Status as Status
from jaxprob.contract import Variables as Variables
from jaxprob.models.bayes import naive_bayes as naive_bayes
from jaxprob.models.kernels import kernel_density as kernel_density
from jaxprob.models.mixtures import dirichlet_mixture as dirichlet_mixture
from jaxprob.models.mixtures import gaussian_mixture as gaussian_mixture
from jaxprob.models.neighbours import knn_classifier as knn_classifier
from jaxprob.models.neighbours import knn_density as knn_density
from jaxprob.models.regression import linear as linear
from jaxprob.models.regression import logistic as logistic
from jaxprob.models.regression import poisson as poisson
from jaxprob.models.regression import softmax as softmax
from jaxprob.models.trees import decision_tree as decision_tree
from jaxprob.models.trees import random_forest as random_forest
