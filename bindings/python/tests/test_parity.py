"""The merges of Tests/Fixtures/parity.tsv give the expected bytes, here and in `swift test` (FixtureTests.swift).

A line holds a method, its parameters as JSON, and the FNV-1a hash of the merged bytes of all tensors in the order of
their names, for the five soups of digits-vit on their base, written as bfloat16. The hashes are those of the first
release; a change of the arithmetic that moves a bit anywhere changes them, and has to say so. To print the lines anew:
python test_parity.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest

import stockpot as sp

FIXTURES = Path(__file__).resolve().parents[3] / "Tests" / "Fixtures"
CASES = [
    line.split("\t")
    for line in (FIXTURES / "parity.tsv").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def merged_hash(method: str, parameters: str, folder: Path) -> str:
    """Merge the soups and hash what comes out."""
    vit = FIXTURES / "digits-vit"
    recipe = {
        "merge_method": method,
        "base_model": str(vit / "base"),
        "models": [{"model": str(vit / f"soup-{k}")} for k in range(5)],
        "parameters": json.loads(parameters),
        "dtype": "bfloat16",
    }
    output = folder / "out.safetensors"
    sp.merge(recipe, output, progress=False, overwrite=True)
    value = 0xCBF29CE484222325
    with sp.open(output) as merged:
        for name in sorted(merged):
            for byte in merged[name].tobytes():
                value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:x}"


@pytest.mark.filterwarnings("ignore::stockpot.StockpotWarning")
@pytest.mark.parametrize(("method", "parameters", "expected"), CASES)
def test_merged_bytes_are_the_expected_ones(method: str, parameters: str, expected: str, tmp_path: Path) -> None:
    assert merged_hash(method, parameters, tmp_path) == expected


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for method, parameters, _ in CASES:
            sys.stdout.write(f"{method}\t{parameters}\t{merged_hash(method, parameters, Path(scratch))}\n")
