"""Sizes out of text, and JSON out of Python objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stockpot as sp
from stockpot import _tables, _values


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 * 1024**3),
        ("5GB", 5 * 10**9),
        ("5G", 5 * 10**9),
        ("300 MB", 300 * 10**6),
        ("1.5kib", 1536),
        ("0.5 tb", 5 * 10**11),
        (".5k", 500),
        ("123456", 123456),
        ("9223372036854775807", 2**63 - 1),
        (7, 7),
        (None, 0),
    ],
)
def test_sizes(text: Any, size: int) -> None:
    assert _values.parse_size(text, "max_memory") == size


@pytest.mark.parametrize(
    "text", ["", "GB", "-1", "5B", "5iB", "1 2", "1e9", "many", "9223372036854775808", -1, True, 1.5]
)
def test_what_is_no_size(text: Any) -> None:
    with pytest.raises(sp.ArgumentError, match="shard_size"):
        _values.parse_size(text, "shard_size")


def test_plain_values() -> None:
    value = {"a": (1, 2.5), "b": np.float32(0.5), "c": np.arange(3), "d": Path("x/y"), "e": None, "f": np.True_}
    assert _values.plain(value, "", "SP_E_RECIPE") == {
        "a": [1, 2.5],
        "b": 0.5,
        "c": [0, 1, 2],
        "d": "x/y",
        "e": None,
        "f": True,
    }
    assert json.loads(_values.to_json({"lambda": 1e-5}, "", "SP_E_PARAMETER")) == {"lambda": 1e-5}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"parameters": {"t": float("nan")}}, r"parameters\.t is nan"),
        ({"parameters": {"t": [1, float("inf")]}}, r"parameters\.t\[1\] is inf"),
        ({"a": {1: 2}}, "key 1"),
        ({"a": object()}, "a is a object"),
        ({"a": b"x"}, "a is a bytes"),
    ],
)
def test_values_that_json_lacks(value: Any, words: str) -> None:
    with pytest.raises(sp.RecipeError, match=words):
        _values.plain(value, "", "SP_E_RECIPE")


def test_a_value_that_holds_itself() -> None:
    value: dict[str, Any] = {}
    value["again"] = value
    with pytest.raises(sp.RecipeError, match="holds itself"):
        _values.plain(value, "", "SP_E_RECIPE")


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (999, "999 B"), (828720, "829 kB"), (14.5e9, "14.5 GB"), (999.9e6, "1 GB")]
)
def test_sizes_in_words(count: float, words: str) -> None:
    assert _tables.size(count) == words


def test_table() -> None:
    text = _tables.table([("a", 1, "x"), ("bcd", 20, "")], ("name", "count", ""))
    assert text.splitlines() == ["name  count", "a         1  x", "bcd      20"]
    assert _tables.table([]) == ""
