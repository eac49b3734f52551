"""`stockpot plan`: what a merge would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ._options import (
    GroupedCommand,
    group,
    job_options,
    mergekit_options,
    method_options,
    note_without_meaning,
    override_options,
)
from ._program import print_note, print_warning
from ._recipe import recipe_of

if TYPE_CHECKING:
    from ..plans import Plan


@click.command(cls=GroupedCommand)
@click.argument("paths", nargs=-1, metavar="RECIPE | MODEL...")
@method_options
@override_options
@job_options
@group(
    "What is said",
    (
        (
            ("-o", "--output"),
            {"metavar": "PATH", "help": "Where the output would be; its disk is then looked at too."},
        ),
        (("--tensors",), {"is_flag": True, "help": "List every tensor."}),
        (
            ("--json", "as_json"),
            {"is_flag": True, "help": "Print the whole plan as JSON, with every byte range."},
        ),
    ),
)
@mergekit_options
def plan(
    paths: tuple[str, ...],
    method: str | None,
    base: str | None,
    parameters: tuple[str, ...],
    dtype: str | None,
    random_seed: int | None,
    tensor_set: str | None,
    threads: int,
    max_memory: str | None,
    shard_size: str | None,
    strict: bool,
    assignments: tuple[str, ...],
    output: str | None,
    tensors: bool,
    as_json: bool,
) -> None:
    """Show what a merge would do: inputs, files, bytes, memory, warnings. Only headers are read; nothing is written.

    \b
    Examples:
      stockpot plan recipe.yaml
      stockpot plan recipe.yaml --tensors
      stockpot plan recipe.yaml --json > plan.json
      stockpot plan --method model_stock --base B A C D
    """
    if method is None and len(paths) > 1:
        raise click.UsageError("too many paths: give one RECIPE, or --method with models")
    note_without_meaning(print_note)
    switches = {"tensor_set": tensor_set}
    recipe = recipe_of(paths, method, base, parameters, dtype, random_seed, assignments, switches)
    from .._job import JobOptions
    from .._stages import folder_of, plan_stages

    options = JobOptions(threads, max_memory, shard_size, strict=strict)
    found = plan_stages(recipe, output, options, folder_of(output or "OUTPUT", None))
    for warning in found.all_warnings:
        print_warning(warning)
    show_plan(found, as_json, tensors)


def show_plan(plan: Plan, as_json: bool, tensors: bool) -> None:
    """Print a plan."""
    from .._tables import plan_text

    click.echo(plan.to_json(indent=2) if as_json else plan_text(plan, tensors))
