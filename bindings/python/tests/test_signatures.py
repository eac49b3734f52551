"""Functions made from a schema: signature, docstring, and what they hand on."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from stockpot import _signatures, _tables

SCHEMA: _signatures.Schema = {
    "name": "example",
    "title": "An example",
    "summary": "What it does.",
    "family": "gram",
    "citation": "Somebody, 2024",
    "inputs": {"base": "required", "min_models": 2, "max_models": None},
    "parameters": [
        {"name": "t", "type": "number", "required": True, "default": None, "minimum": 0.0, "maximum": 1.0}
        | {"per_model": False, "summary": "Where to stop."},
        {"name": "lambda", "type": "number", "required": False, "default": 1.0}
        | {"per_model": True, "summary": "Scale."},
        {"name": "solver", "type": "choice", "required": False, "default": "clamp", "choices": ["clamp", "qp"]}
        | {"per_model": False, "summary": "Solver.", "source": "clamp: the seed."},
        {"name": "seed", "type": "integer", "required": False, "default": None, "minimum": 0.0}
        | {"per_model": False, "summary": "Seed."},
    ],
    "reports": ["t", "cosines"],
}  # type: ignore[typeddict-item]


def test_signature_of_a_schema() -> None:
    signature = _signatures.make_signature(SCHEMA)
    assert list(signature.parameters) == [
        *("models", "base", "t", "lambda_", "solver", "seed"),
        *("name", "return_report", "dtype", "threads"),
    ]
    assert signature.parameters["base"].default is inspect.Parameter.empty
    assert signature.parameters["t"].default is inspect.Parameter.empty
    assert signature.parameters["lambda_"].default == 1.0
    assert signature.parameters["lambda_"].annotation == float | list[float]
    assert signature.parameters["seed"].annotation == int | None
    assert signature.parameters["solver"].kind is inspect.Parameter.KEYWORD_ONLY


def test_docstring_of_a_schema() -> None:
    text = _signatures.make_docstring(SCHEMA)
    for words in (
        "An example.",
        "models: 2 or more arrays",
        "t: Where to stop (0 to 1; required).",
        "lambda_: Scale (one value, or a list with one per model; default 1.0).",
        "solver: Solver (clamp | qp; default 'clamp'). clamp: the seed.",
        "seed: Seed (at least 0; optional).",
        "t, cosines and warnings",
        "Raises:",
        "Source: Somebody, 2024",
    ):
        assert words in text


def test_function_hands_on_what_it_is_given() -> None:
    def record(*arguments: Any, **keywords: Any) -> Any:
        return arguments, keywords

    function = _signatures.make_function(SCHEMA, record)
    assert function.__name__ == "example"
    assert inspect.signature(function) == _signatures.make_signature(SCHEMA)
    # Only what is given: the library knows its defaults, and what is missing or unknown.
    assert function(1, 2) == (("example",), {"models": 1, "base": 2})
    assert function(base=2, models=1, t=3, tt=4) == (("example",), {"models": 1, "base": 2, "t": 3, "tt": 4})
    with pytest.raises(TypeError, match="base"):
        function(1)
    with pytest.raises(TypeError):
        function(1, 2, 3)


@pytest.mark.parametrize(("least", "most", "words"), [(1, None, "1 or more"), (2, 2, "2"), (2, 8, "2 to 8")])
def test_number_of_models(least: int, most: int | None, words: str) -> None:
    schema: Any = {**SCHEMA, "inputs": {"base": "donor", "min_models": least, "max_models": most}}
    assert _signatures.model_range(schema) == words
    assert _signatures.make_signature(schema).parameters["base"].default is None


def test_table_of_methods() -> None:
    assert _tables.methods_text([SCHEMA]).splitlines()[1].split("  ")[0] == "example"
    text = _tables.method_text(SCHEMA)
    for words in (
        "t  (number; 0 to 1; required)",
        "lambda  (number; one per model; default 1.0)",
        "seed  (integer; at",
    ):
        assert words in text
