"""The table of the deck's 34 equations, and of propositions and running code beside them.

A row has a statement, an erratum, a function of the package and a check.  `scratchgen verify`, the book and the tests
read this table.  A check runs the package's function on one fixed problem.  Another function can take
its place: `check(row, {"ddpm.q_posterior": mine})`.

`deck` holds the 34 equations, `propositions` the propositions that complete them, and `running` the loops, networks
and fast forms that the models run.  `beyond` holds propositions of the deck's neighbourhood that it does not contain.
`names` has the short names of the rows.  `problems` holds the fixed numbers; `em`, `vae`, `ddpm`, `sde` and `nn` apply
the checks to the functions.
"""

from scratchgen.equations.beyond import BEYOND
from scratchgen.equations.deck import EQUATIONS
from scratchgen.equations.names import called, similar, slug_of
from scratchgen.equations.propositions import THEORY
from scratchgen.equations.row import Row, check, find, through
from scratchgen.equations.running import RUNNING

PROPOSITIONS: tuple[Row, ...] = THEORY + RUNNING + BEYOND

__all__ = ["BEYOND", "EQUATIONS", "PROPOSITIONS", "Row", "called", "check", "find", "similar", "slug_of", "through"]
