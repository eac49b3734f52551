"""max_memory: what does not fit is refused beforehand, naming tensor, bytes and remedy; what fits stays the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stockpot as sp
from reference.arrays import read_checkpoint

SPECTRAL = ("tsvm", "iso_c", "iso_cts", "scale_svd")


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """Three models with one large matrix and one small one."""
    rng = np.random.default_rng(1)
    shapes = {"large.weight": (400, 300), "small.weight": (20, 30), "bias": (300,)}
    base = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    sp.save(base, tmp_path / "base")
    for index in range(3):
        noise = {name: 0.1 * rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        sp.save({name: base[name] + noise[name] for name in base}, tmp_path / f"model-{index}")
    models = [str(tmp_path / f"model-{index}") for index in range(3)]
    return {"base_model": str(tmp_path / "base"), "models": models}


@pytest.mark.parametrize("method", SPECTRAL)
def test_spectral_methods_refuse_what_does_not_fit(method: str, recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(sp.StockpotMemoryError, match=r"large\.weight.*bytes.*exclude_keys"):
        sp.merge({**recipe, "merge_method": method}, tmp_path / "out", max_memory="1MiB", progress=False)
    assert not (tmp_path / "out").exists()
    excluded = {**recipe, "merge_method": method, "parameters": {"exclude_keys": ["large.*"]}}
    assert sp.plan(excluded, max_memory="1MiB").memory <= 1 << 20


@pytest.mark.parametrize("method", [*SPECTRAL, "ties", "dare_ties", "tgmd"])
def test_little_memory_gives_the_same_bytes(method: str, recipe: dict[str, Any], tmp_path: Path) -> None:
    """Just what the largest tensor needs, one thread: the result does not depend on it."""
    parameters = {"density": 0.5} if method.startswith(("ties", "dare", "tgmd")) else {}
    chosen = {**recipe, "merge_method": method, "parameters": parameters}
    sp.merge(chosen, tmp_path / "free", progress=False)
    least = 1 << 20
    while True:
        try:
            sp.merge(chosen, tmp_path / "tight", max_memory=least, progress=False)
            break
        except sp.StockpotMemoryError:
            least = least * 5 // 4
    assert least < 128 << 20
    free, tight = read_checkpoint(tmp_path / "free"), read_checkpoint(tmp_path / "tight")
    for name in free:
        assert free[name].tobytes() == tight[name].tobytes(), name
