"""What models, problems and solvers agree on: types only."""

from jaxprob.contract.bind import Bind as Bind
from jaxprob.contract.model import Geometry as Geometry
from jaxprob.contract.model import Model as Model
from jaxprob.contract.model import Predictions as Predictions
from jaxprob.contract.model import Prior as Prior
from jaxprob.contract.objective import Bound as Bound
from jaxprob.contract.objective import LeaveOneOut as LeaveOneOut
from jaxprob.contract.objective import Likelihood as Likelihood
from jaxprob.contract.objective import Objective as Objective
from jaxprob.contract.objective import likelihood_of as likelihood_of
from jaxprob.contract.proofs import Certificates as Certificates
from jaxprob.contract.proofs import Point as Point
from jaxprob.contract.routes import Estimate as Estimate
from jaxprob.contract.routes import Expectation as Expectation
from jaxprob.contract.routes import Formula as Formula
from jaxprob.contract.routes import Found as Found
from jaxprob.contract.routes import Search as Search
from jaxprob.contract.status import Evidence as Evidence
from jaxprob.contract.status import Status as Status
from jaxprob.contract.traits import Trait as Trait
from jaxprob.contract.variables import Classes as Classes
from jaxprob.contract.variables import Counts as Counts
from jaxprob.contract.variables import Features as Features
from jaxprob.contract.variables import Real as Real
from jaxprob.contract.variables import Support as Support
from jaxprob.contract.variables import Variables as Variables
