"""The library against the recorded results of the public implementations, and the runner against itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stockpot as sp
from goldens import models, run
from goldens.compare import auxiliary_disagreement, disagreement, statistics_disagreement
from goldens.manifest import read_case, read_manifest
from reference.arrays import AnyArray, write_safetensors

GOLDENS = Path(__file__).resolve().parents[3] / "Tests" / "Fixtures" / "goldens"


@pytest.fixture(scope="module")
def results() -> list[run.Result]:
    """What became of every case of the developers' golden set."""
    return list(run.run(GOLDENS))


def test_no_case_fails(results: list[run.Result]) -> None:
    failed = [f"{result.identity}: {result.reason}" for result in results if result.outcome == "failed"]
    assert failed == []


def test_only_what_may_be_skipped_is_skipped(results: list[run.Result]) -> None:
    """Skipped: not comparable by the manifest, a method that is not listed, or a part of the grammar."""
    manifest = read_manifest(GOLDENS)
    entries = {entry["id"]: entry for entry in (*manifest["cases"], *manifest["model_cases"])}
    assert len(results) == len(entries)
    for result in results:
        entry = entries[result.identity]
        if result.outcome != "skipped" or not entry["compare"]:
            continue
        unlisted = "has no method" in result.reason
        grammar = any(key in result.reason for key in models.LATER_KEYS)
        assert unlisted or grammar, f"{result.identity}: {result.reason}"
    passed = {entries[result.identity]["method"] for result in results if result.outcome == "passed"}
    assert passed >= set(sp.methods()) & {entry["method"] for entry in entries.values()}


def test_command_line() -> None:
    """Lines for what failed or was skipped, and the counts last; an unknown folder is an error."""
    script = Path(run.__file__)
    done = subprocess.run(
        [sys.executable, str(script), str(GOLDENS), "--only", "linear"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" skipped")
    wrong = subprocess.run([sys.executable, str(script), "/nowhere"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2


def _entry(identity: str, method: str, repository: str, arrays: dict[str, AnyArray], **given: Any) -> dict[str, Any]:
    """A case of a made-up golden set, compared to 1e-6."""
    rule = {"compare": True, "rtol": 0.0, "atol": 1e-6}
    return {
        "id": identity,
        "method": method,
        "implementation": f"{repository}@1.0::made.up",
        "parameters": given,
        "dtype": "float32",
        "input_kind": "made up",
        "inputs": [name for name in arrays if not name.startswith("output")],
        "outputs": {name: rule for name in arrays if name.startswith("output")},
        "file": f"tensors/{identity}.safetensors",
        "compare": True,
    }


def test_a_set_that_the_code_has_not_seen(tmp_path: Path) -> None:
    """Reasons of every kind, the counts, the exit code, and checkpoints with ignored keys, scope and weights."""
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    pair = {"model_0": x, "model_1": x + 1}
    stored = {"base::a": 0 * x, "model_0::a": x, "model_1::a": 3 * x + 1, "base::b": 0 * x, "model_0::b": x}
    stored["model_1::b"] = 5 * x
    average = {"output::a": 2 * x + np.float32(0.5), "output::b": 3 * x}
    points = {f"model_{index}::{name}": x + index for index in range(3) for name in "ab"}
    heavy = {"output::a": x + 2, "output::b": x + 2}
    cases: list[tuple[dict[str, AnyArray], str, str, str, dict[str, Any]]] = [
        ({**pair, "output": x + np.float32(0.75)}, "right", "linear", "arcee-ai/mergekit", {"weight": [1, 3]}),
        ({**pair, "output": x}, "wrong", "linear", "arcee-ai/mergekit", {}),
        ({**pair, "output": x}, "parameter", "linear", "arcee-ai/mergekit", {"power": 2}),
        ({**pair, "output": x}, "stranger", "linear", "some/body", {}),
        ({**pair, "output": x}, "later", "karcher", "arcee-ai/mergekit", {}),
        ({**pair, "output": x}, "apart", "linear", "arcee-ai/mergekit", {}),
        ({**pair, "output": x}, "refused", "slerp", "arcee-ai/mergekit", {"t": 7.0}),
        ({**pair, "output": x[:1]}, "shape", "linear", "arcee-ai/mergekit", {}),
        ({**stored, **average}, "ignored", "model_stock", "tanganke/fusion_bench", {"ignore_keys": ["a", "b"]}),
        (
            {**points, **heavy},
            "weighted",
            "geometric_median",
            "krishnap25/geom_median",
            {"weights": [1.0, 1.0, 9.0], "per_component": False, "eps": 1e-6, "maxiter": 100},
        ),
    ]
    (tmp_path / "tensors").mkdir()
    entries = []
    for arrays, identity, method, repository, given in cases:
        entries.append(_entry(identity, method, repository, arrays, **given))
        write_safetensors(tmp_path / entries[-1]["file"], arrays)
    entries[5]["compare"] = False
    manifest = {"format": 1, "cases": entries, "model_cases": []}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    outcomes = {result.identity: result for result in run.run(tmp_path)}
    unlisted = "karcher" not in sp.methods()
    expected = {
        "right": ("passed", ""),
        "wrong": ("failed", "6 of 6 elements differ"),
        "parameter": ("failed", "'power'"),
        "stranger": ("failed", "some/body"),
        "later": ("skipped", "Seed methods") if unlisted else ("failed", ""),
        "apart": ("skipped", "not comparable"),
        "refused": ("failed", "ParameterError"),
        "shape": ("failed", "shape (2, 3) instead of (1, 3)"),
        "ignored": ("passed", ""),
        "weighted": ("passed", ""),
    }
    for identity, (outcome, reason) in expected.items():
        assert outcomes[identity].outcome == outcome, outcomes[identity]
        assert reason in outcomes[identity].reason
    assert run.main([str(tmp_path)]) == 1
    assert run.main([str(tmp_path), "--only", "geometric_median"]) == 0


def test_a_wrong_result_is_seen() -> None:
    """Every recorded output, changed by ten times its tolerance, is told from the golden."""
    manifest = read_manifest(GOLDENS)
    for entry in manifest["cases"][:60]:
        case = read_case(GOLDENS, entry)
        for output in case.outputs:
            if not output.compared or not output.rule["atol"]:
                continue
            golden = case.arrays[output.key].astype(np.float64)
            assert disagreement(golden, golden, output.rule) == ""
            limit = output.rule["atol"] + output.rule["rtol"] * np.abs(golden)
            assert "differ" in disagreement(golden + 10 * limit, golden, output.rule)


def test_share_of_elements_that_may_differ() -> None:
    golden = np.zeros(100)
    candidate = golden.copy()
    candidate[:5] = 1.0
    rule = {"atol": 0.1, "rtol": 0.0}
    assert disagreement(candidate, golden, rule, mismatch=0.05) == ""
    assert disagreement(candidate, golden, rule, mismatch=0.04).startswith("5 of 100")
    assert disagreement(np.full(100, np.nan), golden, rule).startswith("100 of 100")
    assert disagreement(golden[:50], golden, rule) == "50 elements instead of 100"


def test_intermediate_values() -> None:
    """A ratio is compared by its cosine where it is singular in it; what a report should tell must be there."""
    rule = {"atol": 1e-9, "rtol": 0.0}
    near_pole = np.array([-2.0e8])
    right_angle = np.array([90.0])
    assert auxiliary_disagreement("model_stock", "aux_angle_deg", {"t": 0.0}, right_angle, rule, 2) == ""
    assert auxiliary_disagreement("model_stock", "aux_angle_deg", {"t": 0.7, "cosine": 0.5}, right_angle, rule, 2)
    assert auxiliary_disagreement("model_stock", "aux_ratio", {"t": -1.6e8}, near_pole, rule, 2) == ""
    assert auxiliary_disagreement("model_stock", "aux_ratio", {"t": 0.5}, np.array([0.6]), rule, 2) != ""
    assert "lambdas" in auxiliary_disagreement("yoyo_scale", "aux_lambdas", {}, near_pole, rule, 2)
    assert auxiliary_disagreement("scale_svd", "aux_processed_tv_0", {}, near_pole, rule, 2) == ""
    lambdas = {"lambdas": [0.25, 0.5]}
    assert auxiliary_disagreement("yoyo_scale", "aux_lambdas", lambdas, np.array([0.25, 0.5]), rule, 2) == ""
    assert auxiliary_disagreement("yoyo_scale", "aux_lambdas", lambdas, np.array([0.5, 0.25]), rule, 2) != ""
    rows = np.array([0.1, 0.2, 0.9])
    report = {"t_min": 0.1, "t_mean": 0.4, "t_max": 0.9}
    assert auxiliary_disagreement("model_stock", "aux_t", report, rows, rule, 3) == ""
    assert auxiliary_disagreement("model_stock", "aux_t", {**report, "t_max": 0.8}, rows, rule, 3) != ""


def test_tables_of_lambdas(tmp_path: Path) -> None:
    """Six decimals have to agree; another header, a missing tensor and another number are told."""
    table = "tensor_name,model_0_lambda,model_1_lambda\na,0.250000,0.500000\nb,nan,nan\n"
    (tmp_path / "golden.csv").write_text(table, encoding="utf-8")

    def differences(text: str) -> list[str]:
        (tmp_path / "ours.csv").write_text(text, encoding="utf-8")
        return models.lambda_differences(tmp_path / "ours.csv", tmp_path / "golden.csv")

    assert differences(table) == []
    assert differences(table.replace("0.250000", "0.250001")) == []
    assert len(differences(table.replace("0.250000", "0.250003"))) == 1
    assert len(differences(table.replace("a,0.250000,0.500000\n", ""))) == 1
    assert len(differences(table.replace("model_1", "model_2"))) == 1


def test_statistics_of_random_dropping() -> None:
    """Right draws pass for both conventions of scaling; a wrong rate, scale or support does not."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((64, 64)).astype(np.float32)
    delta = rng.standard_normal((64, 64)).astype(np.float32)
    model = base + delta
    expected = {
        "keep_fraction_mean": 0.3,
        "keep_fraction_std": 0.007,
        "kept_scale_mean": 3.33,
        "kept_scale_std": 0.1,
    }
    kept = rng.random((64, 64)) < 0.3
    for scale in (1 / 0.3, float(np.abs(delta).sum() / np.abs(delta[kept]).sum())):
        draw = np.where(kept, base + np.float32(scale) * (model - base), base).astype(np.float32)
        assert statistics_disagreement(draw, base, model, expected) == ""
    assert "scaled by" in statistics_disagreement(np.where(kept, model, base), base, model, expected)
    many = rng.random((64, 64)) < 0.5
    assert "kept instead" in statistics_disagreement(np.where(many, model, base), base, model, expected)
    uneven = np.where(kept, base + delta * rng.uniform(2, 4, base.shape).astype(np.float32), base)
    assert "different factors" in statistics_disagreement(uneven, base, model, expected)
    assert "does not change" in statistics_disagreement(base + 1, base, base.copy(), expected)
