"""Methods of the literature as configurations of the parts, each with its reference.

What a preset keeps of its source is the mechanism; schedules and sizes are those of the solver's options, since the
sources' are for days on GPUs. What could not be established is listed as such, and not offered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bilevel_core.errors import unknown
from bilevel_nas.parts import Parts


@dataclass(frozen=True)
class Preset:
    """A named configuration.

    Attributes:
        parts: the configuration.
        reference: where the method comes from.
        note: what differs from the source, or is needed besides.
    """

    parts: Parts
    reference: str
    note: str = ""


SHUKLA = "the auxiliary program: Savard and Gauvin (1994); for networks Sinha, Khandait and Mohanty (2024)"

PRESETS: Mapping[str, Preset] = {
    "auxiliary": Preset(Parts(hyper="aux"), SHUKLA, "Gauss-Newton curvature"),
    "implicit": Preset(Parts(hyper="cg"), "Pedregosa (2016); Lorraine, Vicol and Duvenaud (2020)"),
    "darts1": Preset(Parts(), "Liu, Simonyan and Yang (2019), DARTS: first order"),
    "darts2": Preset(Parts(hyper="fd"), "Liu, Simonyan and Yang (2019), DARTS: second order"),
    "pc-darts": Preset(Parts(mask="partial:4", edges=True), "Xu et al. (2020), PC-DARTS"),
    "proxyless": Preset(Parts(relax="gates", reg="cost"), "Cai, Zhu and Han (2019), ProxylessNAS", "cost for latency"),
    "fbnet": Preset(Parts(relax="gumbel", reg="cost", share="layer"), "Wu et al. (2019), FBNet", "cost for latency"),
    "p-darts": Preset(
        Parts(mask="prune", reg="skip-dropout", disc="skips"),
        "Chen, Xie, Wu and Tian (2019), P-DARTS",
        "the network does not grow in depth: candidates are taken away, skips dropped at random, two left a cell",
    ),
    "robust-darts": Preset(Parts(hyper="fd", stop="eigenvalue"), "Zela et al. (2020), RobustDARTS: early stopping"),
    "robust-darts-decay": Preset(Parts(reg="decay"), "Zela et al. (2020), RobustDARTS: adaptive weight decay"),
    "fair-darts": Preset(
        Parts(relax="sigmoid", reg="zero-one", disc="threshold"), "Chu, Zhou, Zhang and Li (2020), Fair DARTS"
    ),
    "darts-plus": Preset(Parts(stop="skips"), "Liang et al. (2019), DARTS+: at most two skips a cell"),
    "darts-plus-stable": Preset(Parts(stop="stable"), "Liang et al. (2019), DARTS+: ranking stable"),
    "ndarts": Preset(Parts(hyper="neumann:5"), "NDARTS: Neumann series for the implicit gradient"),
    "idarts": Preset(Parts(hyper="neumann:2"), "Zhang et al. (2021), iDARTS: stochastic implicit gradient"),
    "ostr-darts": Preset(Parts(disc="strength"), "OStr-DARTS: operation strength"),
    "darts-pt": Preset(Parts(disc="perturbation"), "Wang et al. (2021), Rethinking architecture selection, DARTS-PT"),
    "smooth-darts": Preset(Parts(reg="perturbation"), "Chen and Hsieh (2020), SmoothDARTS: random smoothing"),
    "beta-darts": Preset(Parts(reg="beta"), "Ye et al. (2022), beta-DARTS"),
    "drnas": Preset(Parts(relax="dirichlet"), "Chen et al. (2021), DrNAS"),
    "gdas": Preset(Parts(relax="gumbel", mask="sample1"), "Dong and Yang (2019), GDAS"),
    "random-features": Preset(
        Parts(lower="freeze"),
        "random-features DARTS: convolutions stay random, normalisation and classifier are trained",
    ),
    "enas": Preset(
        Parts(mask="sample1", hyper="reinforce"),
        "Pham et al. (2018), ENAS",
        "a factorised controller, not a recurrent one",
    ),
    "once-for-all": Preset(
        Parts(mask="sample1", hyper="none", disc="evolution"),
        "Cai et al. (2020), Once-for-all; Guo et al. (2020), single path one-shot",
        "shared weights trained on random architectures, then evolution with inherited weights",
    ),
}

NOT_OFFERED: Mapping[str, str] = {
    "relax-darts": "input weights of Relax DARTS: described too shortly to be rebuilt",
    "lmd-darts": "dynamic pruning with redistributed weights of LMD-DARTS: not established",
    "em-darts": "transfer-entropy simplification of EM-DARTS: not established",
    "de-darts": "decaying attention on architecture parameters: recalled, not established",
    "att-darts": "an attention module per operation: a search space rather than a method, not established",
    "sto-darts, bhe-darts": "presumably stochastic implicit estimates: names only",
    "e-darts, rl-darts, semantic-darts": "not established",
}
"""Variants that the survey names and this package does not offer, with the reason."""


def find_preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        UsageError: there is none.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name]
