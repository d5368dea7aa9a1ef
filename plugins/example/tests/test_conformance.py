"""The plugin, its solver and its problem, held to what all of bilevel's are held to. Install the plugin first."""

from __future__ import annotations

from bilevel_core.testing import PluginConformance, ProblemConformance, SolverConformance
from bilevel_example.solver import Grid


class TestPlugin(PluginConformance):
    plugin = "example"


class TestLevy(ProblemConformance):
    problem = "example/levy"
    point = ({"levy": 4.0}, {"demand": 4.0})


class TestGrid(SolverConformance):
    factory = Grid
    problems = ("example/levy", "trap/small-bound", "trap/follower-infeasible")
    tolerance = 1e-2
