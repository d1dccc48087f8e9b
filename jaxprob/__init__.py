"""jaxprob: a model is a log-likelihood written as a pure function; everything else transforms it."""
