"""Functions made from the schemas of the methods: a real signature, and a docstring that says all that is known."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any, Literal, TypedDict

_WIDTH = 100


class Inputs(TypedDict):
    """What a method takes besides parameters.

    `base` is "required", "optional", or "donor": names and config come from it, and it is no input of the arithmetic.
    """

    base: str
    min_models: int
    max_models: int | None


class Parameter(TypedDict, total=False):
    """One parameter of a method."""

    name: str
    type: str
    required: bool
    default: Any
    choices: list[str]
    minimum: float
    maximum: float
    per_model: bool
    summary: str
    source: str


class Schema(TypedDict):
    """What a method is and takes; see sp_method_schema in include/stockpot.h."""

    name: str
    title: str
    summary: str
    family: str
    citation: str
    inputs: Inputs
    parameters: list[Parameter]
    reports: list[str]


_TYPES: dict[str, Any] = {
    "number": float,
    "integer": int,
    "boolean": bool,
    "string": str,
    "choice": str,
    "list": list[str],
    "vectors": list[Any],
    "model": int | str,
}

_BASES = {
    "required": "the array of the base model, of the same shape",
    "optional": "the array of the base model, of the same shape; None if there is none",
    "donor": "the array of the base model, which is no input of the arithmetic; usually None",
}


def model_range(schema: Schema) -> str:
    """How many models the method takes, in words: "2", "2 or more", "2 to 8"."""
    least, most = schema["inputs"]["min_models"], schema["inputs"]["max_models"]
    if most is None:
        return f"{least} or more"
    return str(least) if most == least else f"{least} to {most}"


def describe_range(parameter: Parameter) -> str:
    """The values a parameter takes, in words: "0 to 1", "cos | angle | adjacent", or ""."""
    if parameter.get("choices"):
        return " | ".join(parameter["choices"])
    low, high = parameter.get("minimum"), parameter.get("maximum")
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    if low is not None:
        return f"at least {low:g}"
    return "" if high is None else f"at most {high:g}"


def python_name(name: str) -> str:
    """The name of a parameter in Python: `lambda` is a keyword."""
    return "lambda_" if name == "lambda" else name


def make_signature(schema: Schema) -> inspect.Signature:
    """The signature of a method's function: models, base, the method's parameters, and those of `merge_tensors`."""
    kinds = inspect.Parameter
    required = schema["inputs"]["base"] == "required"
    parameters = [
        kinds("models", kinds.POSITIONAL_OR_KEYWORD),
        kinds("base", kinds.POSITIONAL_OR_KEYWORD, default=kinds.empty if required else None),
    ]
    for parameter in schema["parameters"]:
        default = kinds.empty if parameter.get("required") else parameter.get("default")
        annotation = _annotation(parameter)
        parameters.append(
            kinds(python_name(parameter["name"]), kinds.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    taken = {parameter.name for parameter in parameters}
    common = (("name", "", str), ("return_report", False, bool), ("dtype", None, Any), ("threads", 0, int))
    for name, default, annotation in common:
        if name not in taken:
            parameters.append(kinds(name, kinds.KEYWORD_ONLY, default=default, annotation=annotation))
    return inspect.Signature(parameters)


def make_function(schema: Schema, merge_tensors: Callable[..., Any]) -> Callable[..., Any]:
    """Make the function of a method.

    Args:
        schema: the method's.
        merge_tensors: what it calls. Only what the caller names is handed on, so that the library's own defaults hold.
            A parameter that is missing, or that the method does not have, is refused by the library, which says what
            there is.
    """
    method = schema["name"]
    signature = make_signature(schema)
    arrays = [signature.parameters[name] for name in ("models", "base")]
    positional = inspect.Signature(arrays)

    def function(*arguments: Any, **keywords: Any) -> Any:
        given = {key: keywords.pop(key) for key in ("models", "base") if key in keywords}
        bound = positional.bind(*arguments, **given)
        return merge_tensors(method, **bound.arguments, **keywords)

    function.__name__ = method
    function.__qualname__ = method
    function.__module__ = "stockpot"
    function.__doc__ = make_docstring(schema)
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def make_docstring(schema: Schema) -> str:
    """The docstring of a method's function: what it does, arguments, result, errors, and where it comes from."""
    rule = schema["inputs"]["base"]
    parts = [f"{schema['title'].rstrip('.')}.", "", *_wrap(schema["summary"], 0), "", "Args:"]
    parts += _item("models", f"{model_range(schema)} arrays of one shape and of float type; see `merge_tensors`")
    parts += _item("base", _BASES.get(rule, f"the array of the base model ({rule})"))
    for parameter in schema["parameters"]:
        parts += _item(python_name(parameter["name"]), describe_parameter(parameter))
    parts += _item("name", "name of the tensor, for messages, `ignore_keys` and random masks")
    parts += _item("return_report", "also return a dict of what was decided")
    parts += _item(
        "dtype",
        f"element type of the result; default: the {'base' if rule == 'required' else 'first input'}'s",
    )
    parts += _item("threads", "0 for the usable CPUs; the result is the same for any number")
    parts += ["", "Returns:"]
    reports = ", ".join(schema["reports"])
    parts += _wrap(
        "The merged array, of the models' shape and kind (numpy or torch). With `return_report`, it and a dict"
        + (f" with {reports} and warnings." if reports else " with warnings."),
        4,
    )
    parts += ["", "Raises:"]
    parts += _item("MethodError", "a number of models, or a base, that the method cannot take")
    parts += _item("ParameterError", "an unknown parameter, or a value out of range")
    parts += _item("ShapeError", "shapes differ")
    parts += _item("DTypeError", "an element type that the library lacks")
    parts += _item("NonFiniteError", "NaN or infinity in an input")
    if schema["citation"]:
        parts += ["", *_wrap(f"Source: {schema['citation']}", 0)]
    return "\n".join(parts) + "\n"


def describe_parameter(parameter: Parameter) -> str:
    """A parameter in a sentence: what it is, its range, its default and which public implementation it matches."""
    words = parameter["summary"].rstrip(".")
    extent = describe_range(parameter)
    facts = [extent] if extent else []
    if parameter.get("per_model"):
        facts.append("one value, or a list with one per model")
    default = parameter.get("default")
    if default is not None:
        facts.append(f"default {default!r}")
    else:
        facts.append("required" if parameter.get("required") else "optional")
    sentence = f"{words} ({'; '.join(facts)})"
    source = parameter.get("source")
    return f"{sentence}. {source}" if source else sentence


def _annotation(parameter: Parameter) -> Any:
    choices = parameter.get("choices")
    kind: Any = Literal[tuple(choices)] if choices else _TYPES.get(parameter["type"], Any)
    if kind is Any:
        return Any
    if parameter.get("per_model"):
        kind = kind | list[kind]
    return kind if parameter.get("required") or parameter.get("default") is not None else kind | None


def _item(name: str, description: str) -> list[str]:
    return textwrap.wrap(
        f"{name}: {description.rstrip('.')}.", _WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 8
    )


def _wrap(paragraph: str, indent: int) -> list[str]:
    return textwrap.wrap(paragraph, _WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent)
