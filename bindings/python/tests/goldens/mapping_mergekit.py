"""mergekit's methods beyond the Gram family: their parameters already have this library's names."""

from __future__ import annotations

from .rules import MERGEKIT, Names, Rule, Table

_SHARED: Names = {
    "weight": "weight",
    "density": "density",
    "normalize": "normalize",
    "rescale": "rescale",
    "lambda": "lambda",
    "int8_mask": None,  # the type of a temporary mask in mergekit; without effect on the numbers
}
_RANDOM: Names = {
    **_SHARED,
    "epsilon": "epsilon",
    "seed": "random_seed",
}
_BREADCRUMBS: Names = {**_SHARED, "gamma": "gamma"}


def _rule(method: str, names: Names) -> tuple[Rule, ...]:
    return (Rule(method, names, compat="mergekit"),)


RULES: Table = {
    ("ties", MERGEKIT): _rule("ties", _SHARED),
    ("dare_linear", MERGEKIT): _rule("dare_linear", _RANDOM),
    ("dare_ties", MERGEKIT): _rule("dare_ties", _RANDOM),
    ("della", MERGEKIT): _rule("della", _RANDOM),
    ("della_linear", MERGEKIT): _rule("della_linear", _RANDOM),
    ("breadcrumbs", MERGEKIT): _rule("breadcrumbs", _BREADCRUMBS),
    ("breadcrumbs_ties", MERGEKIT): _rule("breadcrumbs_ties", _BREADCRUMBS),
    ("nuslerp", MERGEKIT): _rule(
        "nuslerp",
        {
            "weight": "weight",
            "nuslerp_flatten": "nuslerp_flatten",
            "nuslerp_row_wise": "nuslerp_row_wise",
        },
    ),
    ("multislerp", MERGEKIT): _rule(
        "multislerp",
        {"weight": "weight", "normalize_weights": "normalize_weights", "eps": "eps"},
    ),
    ("karcher", MERGEKIT): _rule("karcher", {"max_iter": "max_iter", "tol": "tol"}),
    ("sce", MERGEKIT): _rule("sce", {"select_topk": "select_topk", "int8_mask": None}),
    ("arcee_fusion", MERGEKIT): _rule("arcee_fusion", {}),
    ("nearswap", MERGEKIT): _rule("nearswap", {"t": "t"}),
    ("ram", MERGEKIT): _rule("ram", {"epsilon": "epsilon"}),
    ("ramplus_tl", MERGEKIT): _rule("ramplus_tl", {"epsilon": "epsilon", "r": "r", "alpha": "alpha"}),
    ("passthrough", MERGEKIT): _rule("passthrough", {"scale": "scale"}),
}
