"""The hooks of hyperparameter tuning. Descriptions only; the code is imported on use."""

from __future__ import annotations

from bilevel_core.hooks import hookimpl
from bilevel_core.plugins.specs import ProblemSpec, SolverSpec

BILEVEL_HOOK_API = 1
INSTALL = 'pip install "bilevel[hpo]"'


def _problem(name: str, function: str, summary: str, *tags: str) -> ProblemSpec:
    return ProblemSpec(
        f"hpo/{name}",
        f"bilevel_hpo.library:{function}",
        summary,
        install=INSTALL,
        tags=frozenset({"tuning", "differentiable", *tags}),
    )


@hookimpl
def bilevel_problems() -> list[ProblemSpec]:
    """Tuning problems on data that ships with scikit-learn, or on the user's CSV."""
    return [
        _problem("ridge", "ridge", "ridge regression, an alpha for each feature", "regression"),
        _problem("elastic-net", "elastic_net", "elastic net, an alpha for each feature and the ratio", "regression"),
        _problem("logistic", "logistic", "multinomial logistic regression, a C for each class", "classification"),
        _problem("svm", "svm", "linear support vector machine, hinge or squared hinge", "classification"),
        ProblemSpec(
            "hpo/svm-exact",
            "bilevel_hpo.exact:svm_exact",
            "linear support vector machine on few rows as a quadratic program, for exact solvers",
            install=INSTALL,
            tags=frozenset({"tuning", "classification"}),
        ),
        _problem(
            "data-cleaning",
            "data_cleaning",
            "a weight for each training row, half of them mislabelled",
            "classification",
        ),
        _problem(
            "mlp", "mlp", "a small network: weight decay by layer and label smoothing", "classification", "nonconvex"
        ),
    ]


@hookimpl
def bilevel_solvers() -> list[SolverSpec]:
    """What the core has no solver for."""
    return [
        SolverSpec(
            "tune",
            "bilevel_hpo.solver:Tune",
            "hyperparameters by descent, with the path in the report and early stopping",
            install=INSTALL,
            priority=70,
            structure="tuning",
        ),
        SolverSpec(
            "hyper-local-search",
            "bilevel_hpo.local_search:HyperLocalSearch",
            "sampled hyperparameters, and a linear program's joint step from each",
            install=INSTALL,
            priority=-5,
        ),
    ]
