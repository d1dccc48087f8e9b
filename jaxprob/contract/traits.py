"""What an objective offers and a solver needs, in words that both share."""

from enum import Flag, auto


class Trait(Flag):
    """What can be done with a problem.

    A solver names those that it needs, a problem those that it offers; what is lacking is the
    message of the error.

    Example:
        >>> (Trait.SMOOTH | Trait.SUM) & ~Trait.SUM
        <Trait.SMOOTH: 4>
    """

    SUM = auto()
    """Its objective adds up over examples: they can be drawn, spread, left out."""
    LIKELIHOOD = auto()
    """Its objective is the log-likelihood: criteria and standard errors make sense."""
    SMOOTH = auto()
    """Its objective has derivatives."""
    CURVED = auto()
    """A matrix of second derivatives (p, p) is affordable."""
    PENALISED = auto()
    """It has parameters that a penalty makes sense for."""
    FORMULA = auto()
    """Its maximum is a formula."""
    EXPECTATION = auto()
    """There is something latent, and sums of what is expected of it lead upwards."""
    SEARCH = auto()
    """It has a search of its own."""
    PROVED = auto()
    """What is said of the distance to the maximum can be proved."""

    def described(self) -> str:
        """The traits in words, with what lacks them in mind.

        Example:
            >>> (Trait.SMOOTH | Trait.FORMULA).described()
            'a gradient, a formula for the maximum'
        """
        return ", ".join(_WORDS[trait] for trait in self)


_WORDS = {
    Trait.SUM: "an objective that adds up over examples",
    Trait.LIKELIHOOD: "a likelihood",
    Trait.SMOOTH: "a gradient",
    Trait.CURVED: "a matrix of second derivatives that is affordable",
    Trait.PENALISED: "parameters that a penalty makes sense for",
    Trait.FORMULA: "a formula for the maximum",
    Trait.EXPECTATION: "something latent to expect",
    Trait.SEARCH: "a search of its own",
    Trait.PROVED: "proofs about its maximum",
}
