"""Write docs/methods.md from the schemas of the methods: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

import stockpot as sp

INTRODUCTION = """# Methods

Made from the methods' schemas by `make docs`; `stockpot methods NAME` prints the same. Per-model parameters take one
value, or one per model.
"""


def shown(value: object) -> str:
    """A default as a recipe spells it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def parameter_row(parameter: dict[str, object]) -> str:
    """One line of a method's table."""
    kind = str(parameter["type"])
    choices = parameter.get("choices")
    if isinstance(choices, list):
        kind = " \\| ".join(f"`{choice}`" for choice in choices)
    limits = [f"{sign} {parameter[key]:g}" for key, sign in (("minimum", ">="), ("maximum", "<=")) if key in parameter]
    default = "needed" if parameter["required"] else f"`{shown(parameter['default'])}`"
    notes = " ".join(str(parameter[key]) for key in ("summary", "source") if parameter.get(key))
    per_model = ", per model" if parameter["per_model"] else ""
    return f"| `{parameter['name']}` | {', '.join([kind, *limits])}{per_model} | {default} | {notes} |"


def section(name: str) -> str:
    """A method's part of the page."""
    schema = sp.method_schema(name)
    inputs = schema["inputs"]
    most = inputs["max_models"]
    count = f"{inputs['min_models']} to {most}" if most else f"{inputs['min_models']} or more"
    base = {"required": "needed", "optional": "optional", "donor": "names, config and tokenizer only"}[inputs["base"]]
    rows = "\n".join(parameter_row(parameter) for parameter in schema["parameters"])
    return (
        f"## `{name}`: {schema['title']}\n\n{schema['summary']}\n\nModels: {count}. Base: {base}. "
        f"Source: {schema['citation']}.\n\n| parameter | values | default | meaning |\n|---|---|---|---|\n{rows}\n\n"
        f"Reports: {', '.join(f'`{key}`' for key in schema['reports'])}.\n"
    )


def page() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *(section(name) for name in sp.methods())])


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page(), encoding="utf-8")
    sys.stdout.write("docs/methods.md is written\n")
