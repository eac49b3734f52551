"""The recipe that a command line stands for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..recipes import Recipe


def recipe_of(
    paths: Sequence[str],
    method: str | None,
    base: str | None,
    parameters: Sequence[str],
    dtype: str | None,
    random_seed: int | None,
    assignments: Sequence[str],
    switches: Mapping[str, str | bool | None],
) -> Recipe:
    """The recipe of a file, or the one that --method, --base, -p, --dtype and models stand for."""
    from pathlib import Path

    from ..recipes import load_recipe, override, parse_yaml

    further = [f"{key}={json.dumps(value)}" for key, value in switches.items() if value is not None]
    further += [f"out_dtype={json.dumps(dtype)}"] if dtype is not None else []
    further += [f"random_seed={random_seed}"] if random_seed is not None else []
    if method is None:
        for option, given in (("--base", base), ("-p", parameters)):
            if given:
                raise click.UsageError(f"{option} needs --method; in a recipe's merge, use --set")
        if not paths:
            raise click.UsageError("missing RECIPE: give a YAML file, or --method with models")
        recipe = load_recipe(Path(paths[0]))
        if random_seed is not None:
            seeded = (stage._replace(value={**stage.value, "random_seed": random_seed}) for stage in recipe.stages)
            recipe = recipe._replace(stages=tuple(seeded))
        return override(recipe, [*assignments, *further])
    if not paths:
        raise click.UsageError("missing MODEL: name the models to merge")
    value: dict[str, Any] = {"merge_method": method}
    if base is not None:
        value["base_model"] = base
    value["models"] = [{"model": path} for path in paths]
    if parameters:
        value["parameters"] = {}
        for parameter in parameters:
            name, equals, text = parameter.partition("=")
            if not equals or not name:
                raise click.UsageError(f"-p {parameter} has no value; write NAME=VALUE")
            value["parameters"][name] = parse_yaml(text, f"-p {name}")
    return override(load_recipe(value), [*assignments, *further])
