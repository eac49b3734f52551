"""passthrough: a copy, or a scaled copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stockpot as sp
from reference import passthrough
from reference.arrays import FLOAT_TYPES, random_models, same_bytes
from reference.checks import check_reference, merge, special_values


@pytest.mark.parametrize("dtype", FLOAT_TYPES, ids=str)
def test_reference(dtype: np.dtype[Any]) -> None:
    special = special_values(np.random.default_rng(1), 500, dtype)
    for given in ({}, {"scale": 1.0}, {"scale": None}):
        assert same_bytes(merge("passthrough", [special], **given)[0], special)
    for scale in (0.0, 0.3, -2.0, [0.75]):
        merged, report = merge("passthrough", [special], scale=scale)
        check_reference(merged, passthrough.merge([special], scale=scale), [special], None, weight=2.0)
        assert report["scale"] == np.asarray(scale).reshape(-1)[0]


def test_refusals() -> None:
    _, models = random_models(np.random.default_rng(1), 2, 10)
    with pytest.raises(sp.MethodError, match="at most 1"):
        sp.merge_tensors("passthrough", models)
