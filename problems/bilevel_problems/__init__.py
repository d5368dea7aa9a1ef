"""A library of bilevel problems with known optima, each with its source.

`plugin` and the `list_` modules describe them; the others write them in Pyomo, one function a problem, imported when a
problem is asked for. No algorithms and no optima live here: optima stand in the descriptions.
"""
