"""Golden cases of the methods over Gram matrices: averages, SLERP, Model Stock, the YOYO methods, medians."""

from __future__ import annotations

from typing import Any

from .rules import FUSION_BENCH, MERGEKIT, SD_MECHA, Names, Parameters, Rule, Table


def _same(*names: str) -> Names:
    return {name: name for name in names}


def _per_component(value: Any) -> Parameters:
    return {"scope": "tensor" if value else "model"}


def _config_dir(value: Any) -> Parameters:
    return {"config_source": f"model_{int(value) - 1}"}


def _config_source_index(value: Any) -> Parameters:
    return {"config_source": "base" if int(value) == 0 else f"model_{int(value) - 1}"}


YOYO_SCALE = "andehury/YOYO-Scale"
YOYO_FUSION = "andehury/YOYO-Fusion"

SEED_REVISION = r"\bseed\b"
HEAD_REVISION = r"\bHEAD\b"

_FUSION_SHARED: Names = {
    **_same("anchor_index", "use_geometric_median", "eps"),
    "config_dir": _config_dir,
}

RULES: Table = {
    ("linear", MERGEKIT): (Rule("linear", _same("weight", "normalize"), compat="mergekit"),),
    ("linear", SD_MECHA): (Rule("linear", compat="sd_mecha"),),
    ("linear", FUSION_BENCH): (Rule("linear", {"weights": "weight", "normalize": "normalize"}, compat="fusion_bench"),),
    ("task_arithmetic", MERGEKIT): (
        Rule("task_arithmetic", _same("weight", "normalize", "lambda"), compat="mergekit"),
    ),
    ("task_arithmetic", FUSION_BENCH): (Rule("task_arithmetic", {"scaling_factor": "lambda"}, compat="fusion_bench"),),
    ("task_arithmetic", "prateeky2806/ties-merging"): (Rule("task_arithmetic"),),
    ("slerp", MERGEKIT): (Rule("slerp", _same("t"), compat="mergekit"),),
    ("slerp", FUSION_BENCH): (Rule("slerp", {"t": "t", "DOT_THRESHOLD": "dot_threshold"}, compat="fusion_bench"),),
    ("slerp", SD_MECHA): (Rule("slerp", {"alpha": "t"}, compat="sd_mecha"),),
    ("model_stock", MERGEKIT): (Rule("model_stock", _same("filter_wise"), compat="mergekit"),),
    ("model_stock", FUSION_BENCH): (
        Rule("model_stock", {"K": None, "ignore_keys": "ignore_keys"}, compat="fusion_bench"),
    ),
    ("model_stock", SD_MECHA): (Rule("model_stock", _same("cos_eps"), compat="sd_mecha"),),
    ("yoyo_scale", YOYO_SCALE): (
        Rule(
            "yoyo_scale",
            {"eps": "eps", "config_source_index": _config_source_index},
            {"solver": "clamp"},
            note=SEED_REVISION,
        ),
        Rule(
            "yoyo_scale",
            {"eps": "eps", "config_source_index": _config_source_index},
            {"solver": "qp"},
            compat="yoyo",
            note=HEAD_REVISION,
        ),
    ),
    ("yoyo_fusion", YOYO_FUSION): (
        Rule(
            "yoyo_fusion",
            {**_FUSION_SHARED, **_same("use_k_minus_one_truncation")},
            {"version": "v1"},
            note=SEED_REVISION,
        ),
        Rule(
            "yoyo_fusion",
            {
                **_FUSION_SHARED,
                **_same("use_matrix_boost", "sign_reference_mode", "use_z_median"),
                "tensor_key": "tensor_name",
            },
            {"version": "v3"},
            note=HEAD_REVISION,
        ),
    ),
    ("geometric_median", "krishnap25/geom_median"): (
        Rule(
            "geometric_median",
            {
                **_same("eps", "maxiter", "ftol"),
                "weights": "weight",
                "per_component": _per_component,
            },
        ),
    ),
    ("geometric_median", SD_MECHA): (Rule("geometric_median", _same("eps", "maxiter", "ftol"), compat="sd_mecha"),),
}
