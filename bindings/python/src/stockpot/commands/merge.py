"""`stockpot merge`: merge checkpoints, stage by stage where a recipe has several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from ._run import run
from .plan import show_plan

if TYPE_CHECKING:
    from ..recipes import Recipe


@click.command(cls=GroupedCommand)
@click.argument("paths", nargs=-1, metavar="RECIPE [OUTPUT] | MODEL...")
@method_options
@override_options
@group(
    "What is written",
    (
        (
            ("-o", "--output", "--out-path"),
            {"metavar": "PATH", "help": "Folder to make, or a name that ends in .safetensors."},
        ),
        (("--overwrite",), {"is_flag": True, "help": "Replace an existing output, once the merge has succeeded."}),
        (("--resume",), {"is_flag": True, "help": "Go on from OUTPUT.partial, where its plan is the same."}),
        (
            ("--intermediate-dir",),
            {
                "metavar": "PATH",
                "help": "Where stages of a recipe of several documents go and stay; default: removed at the end.",
            },
        ),
        (
            ("--copy-tokenizer/--no-copy-tokenizer",),
            {"default": None, "help": "Does the tokenizer of the config's model go along? Default: yes."},
        ),
        (
            ("--write-model-card/--no-write-model-card",),
            {"default": None, "help": "Is README.md written? Default: yes."},
        ),
    ),
)
@job_options
@group(
    "What is said",
    (
        (("--dry-run",), {"is_flag": True, "help": "Print the plan and stop."}),
        (("-q", "--quiet"), {"is_flag": True, "help": "No progress and no summary; warnings and errors only."}),
        (("-v", "--verbose"), {"is_flag": True, "help": "Print the plan before merging, on standard error."}),
        (
            ("--json", "as_json"),
            {"is_flag": True, "help": "Print the outcome (or the plan) as JSON on standard output."},
        ),
    ),
)
@mergekit_options
def merge(
    paths: tuple[str, ...],
    output: str | None,
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
    overwrite: bool,
    resume: bool,
    intermediate_dir: str | None,
    copy_tokenizer: bool | None,
    write_model_card: bool | None,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Merge checkpoints by a recipe, or by --method, --base and models.

    Work happens in OUTPUT.partial, and OUTPUT appears by one rename at the end: after an error or Ctrl-C there is
    nothing at OUTPUT, and --resume continues.

    \b
    Examples:
      stockpot merge recipe.yaml merged
      stockpot merge recipe.yaml merged --set parameters.t=0.4 --max-memory 2GiB
      stockpot merge recipe.yaml merged --dry-run            only print the plan
      stockpot merge --method yoyo_scale --base B A C D -o merged -p solver=qp
      stockpot merge --method linear A B -o merged.safetensors -p weight=[.3,.7] --dtype bfloat16
    """
    note_without_meaning(print_note)
    models_given = method is not None
    if not models_given:
        if len(paths) > 2 or (len(paths) == 2 and output is not None):
            raise click.UsageError("too many paths: give RECIPE and OUTPUT, or --method with models and -o OUTPUT")
        output = output if len(paths) < 2 else paths[1]
        paths = paths[:1]
    if not paths:
        raise click.UsageError(
            "missing MODEL" if models_given else "missing RECIPE: a YAML file, or --method with models"
        )
    if output is None and not dry_run:
        raise click.UsageError("missing OUTPUT: name the folder to make" + (" with -o" if models_given else ""))
    switches = {"tensor_set": tensor_set, "copy_tokenizer": copy_tokenizer, "write_model_card": write_model_card}
    recipe = recipe_of(paths, method, base, parameters, dtype, random_seed, assignments, switches)
    from .._job import JobOptions
    from .._stages import folder_of, plan_stages

    options = JobOptions(threads, max_memory, shard_size, overwrite, resume, strict)
    folder = folder_of(output or "OUTPUT", intermediate_dir)
    if dry_run or verbose:
        found = plan_stages(recipe, output, options, folder)
        if dry_run:
            for warning in found.all_warnings:
                print_warning(warning)
            show_plan(found, as_json, False)
            return
        from .._tables import plan_text

        click.echo(plan_text(found), err=True)
    _run_stages(recipe, str(output), options, folder, quiet, as_json)
    if recipe.stages and intermediate_dir is None:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def _run_stages(recipe: Recipe, output: str, options: Any, folder: Any, quiet: bool, as_json: bool) -> None:
    """Run every stage that is not there yet, the last one under its output's name."""
    from pathlib import Path

    from .._job import Job
    from .._stages import stages

    if recipe.stages and not options.overwrite and Path(output).exists():
        raise click.ClickException(f"{output} exists already: choose another path, or add --overwrite")
    count = len(recipe.stages) + 1
    for number, stage in enumerate(stages(recipe, output, folder), 1):
        title = f"stage {number} of {count}: {stage.name or output}"
        with Job(stage.recipe, stage.output, stage.options(options)) as job:
            plan = job.plan()
            for warning in plan.warnings:
                print_warning(warning)
            if stage.is_made(plan):
                if not quiet:
                    print_note(f"{title} is there already")
                continue
            if count > 1 and not quiet:
                print_note(title)
            stage.begin()
            run(job, plan, str(stage.output), quiet or not stage.is_final, as_json and stage.is_final, output)
            stage.finish(plan)
