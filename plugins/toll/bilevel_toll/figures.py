"""Figures of recorded runs, for ``bilevel plot`` and ``bilevel report``: the map of tolls. Needs matplotlib."""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevel_core.figures.base import new_figure
from bilevel_core.run.stored import StoredRun

MOST_NODES = 1000
"""The schematic layout takes time with the cube of the nodes: larger networks have no map here."""


def toll_map(run: StoredRun) -> Any:
    """The network with arcs as wide as their flow and coloured by toll, in a schematic layout.

    Nothing for runs of other problems, runs without a point, and networks of more than `MOST_NODES` nodes, for which
    ``bilevel toll map --nodes FILE`` is meant.
    """
    if run.result is None or not run.result.has_point or not isinstance(run.result.details.get("tolls"), list):
        return None
    from bilevel_toll.congestion.layout import schematic
    from bilevel_toll.congestion.pictures import draw_arcs, scale_text
    from bilevel_toll.congestion.tolls import CongestedTolls
    from bilevel_toll.problem import TollProblem

    problem, x, y = run.problem(), run.result.x, run.result.y
    if isinstance(problem, TollProblem):
        network, unit = problem.network, problem.unit
        tolls = problem.spread(np.asarray(x["toll"], dtype=float))
        flow = problem.trips @ np.asarray(y["flow"], dtype=float)
    elif isinstance(problem, CongestedTolls):
        network, unit = problem.traffic.network, problem.traffic.unit
        tolls = problem.tolls(problem.point(x))
        flow = np.asarray(y["flow"], dtype=float).sum(axis=0)
    else:
        return None
    if len(network.nodes) > MOST_NODES:
        return None
    figure, axes = new_figure(7.0, 6.0)
    highest = float(tolls.max())
    shown = draw_arcs(axes, network, schematic(network), flow, tolls, float(flow.max()), highest)
    if highest > 0.0:
        figure.colorbar(shown, ax=axes, label=scale_text(unit), shrink=0.7)
    return figure
