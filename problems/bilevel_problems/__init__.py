"""A library of bilevel problems with known optima, each with its source.

`plugin` describes them; the other modules write them in Pyomo, one function a problem, and are imported when a
problem is asked for. No algorithms and no optima live here: optima stand in the descriptions.
"""
