"""What is assumed: one file per model, pure functions of parameters and examples."""

from jaxprob.contract import Bind as Bind
from jaxprob.contract import Classes as Classes
from jaxprob.contract import Counts as Counts
from jaxprob.contract import Model as Model
from jaxprob.contract import Real as Real
from jaxprob.contract import Status as Status
from jaxprob.contract import Variables as Variables
from jaxprob.models import decision_tree as decision_tree
from jaxprob.models import dirichlet_mixture as dirichlet_mixture
from jaxprob.models import gaussian_mixture as gaussian_mixture
from jaxprob.models import kernel_density as kernel_density
from jaxprob.models import knn_classifier as knn_classifier
from jaxprob.models import knn_density as knn_density
from jaxprob.models import logistic as logistic
from jaxprob.models import naive_bayes as naive_bayes
from jaxprob.models import random_forest as random_forest
from jaxprob.models import softmax as softmax
