"""The command `stockpot`: merge, plan, methods, reconstruct, extract-lora, collect-stats, inspect.

Errors are one sentence on standard error, "error: ...", with exit status 1, or 2 for a wrong command line; Ctrl-C
exits with 130. Results go to standard output; progress and warnings to standard error. Heavy modules are imported by
the commands that need them, so that `stockpot --help` is quick.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from . import __version__
from ._options import (
    GroupedCommand,
    cache,
    group,
    mergekit_options,
    note_without_meaning,
)
from ._options import (
    shard_size as size_of_shards,
)
from .errors import StockpotError

if TYPE_CHECKING:
    from .plans import Plan
    from .recipes import Recipe

_Command = TypeVar("_Command", bound=Callable[..., Any])

_INTERRUPTED = 130


class _Program(click.Group):
    """A group whose failures all look alike, whoever found them."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit with its status."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode, **extra)
        try:
            status = super().main(args, prog_name, complete_var, False, **extra)
            sys.stdout.flush()
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "stockpot"
            sentence = error.format_message().rstrip(".?")
            _error(f"{sentence[:1].lower()}{sentence[1:]}; try '{command} --help'")
            sys.exit(2)
        except click.ClickException as error:
            _error(error.format_message())
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            _error("interrupted")
            sys.exit(_INTERRUPTED)
        except StockpotError as error:
            _error(str(error))
            sys.exit(1)
        except BrokenPipeError:
            # The reader has gone (head, less): nothing more can be said, and Python must not try at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except (OSError, MemoryError) as error:
            _error(str(error) or type(error).__name__)
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)


def _error(message: str) -> None:
    click.echo(f"error: {message}", err=True)


def _note(message: str) -> None:
    click.echo(f"note: {message}", err=True)


def _warn(message: str) -> None:
    click.echo(f"warning: {message}", err=True)


def _forbid_fetching(context: click.Context, option: click.Parameter, offline: bool) -> None:
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


_OFFLINE: Final[dict[str, Any]] = {
    "is_flag": True,
    "expose_value": False,
    "callback": _forbid_fetching,
    "help": "Fetch nothing: models are local paths, or in the Hugging Face cache.",
}
_offline_option = click.option("--offline", **_OFFLINE)


_job_options = group(
    "How it is run",
    (
        (
            ("--threads", "-j", "--num-threads"),
            {"type": click.IntRange(min=0), "default": 0, "help": "Workers; 0 for the usable CPUs."},
        ),
        (("--max-memory",), {"metavar": "SIZE", "help": "Most bytes of buffers, such as 2GiB."}),
        (
            ("--shard-size", "--out-shard-size"),
            {"metavar": "SIZE", "callback": size_of_shards, "help": "Bytes of a shard, such as 500MB; default 5GB."},
        ),
        (
            ("--transformers-cache",),
            {
                "metavar": "PATH",
                "expose_value": False,
                "callback": cache,
                "help": "The Hugging Face cache to look in; default: its own place.",
            },
        ),
        (("--offline",), _OFFLINE),
    ),
)
"""The options that `merge` and `plan` share."""


_method_options = group(
    "Instead of a recipe",
    (
        (("--method",), {"metavar": "NAME", "help": "Merge method: see `stockpot methods`."}),
        (("--base",), {"metavar": "PATH", "help": "The base model."}),
        (
            ("-p", "--parameter", "parameters"),
            {
                "metavar": "NAME=VALUE",
                "multiple": True,
                "help": "A parameter of the method, such as solver=qp or weight=[.3,.7]. Repeatable.",
            },
        ),
    ),
)


_override_options = group(
    "What is merged",
    (
        (
            ("--set", "assignments"),
            {
                "metavar": "PATH=VALUE",
                "multiple": True,
                "help": "Set a value, such as parameters.t=0.4 or models.0.parameters.weight=0.3. Repeatable.",
            },
        ),
        (
            ("--dtype",),
            {"metavar": "NAME", "help": "Element type of the output; default: the recipe's, else the base's."},
        ),
        (
            ("--random-seed",),
            {"type": click.IntRange(min=0), "help": "Seed of methods that draw; default: the recipe's, else 0."},
        ),
        (
            ("--tensor-union", "tensor_set"),
            {
                "flag_value": "union",
                "help": "The output has the tensors of all models, merged from those that have them.",
            },
        ),
        (
            ("--tensor-intersection", "tensor_set"),
            {"flag_value": "intersection", "help": "The output has only tensors that all models have."},
        ),
        (("--strict",), {"is_flag": True, "help": "Unknown keys and parameters are errors, not warnings."}),
    ),
)
"""Options that change the recipe, or how it is read."""


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="stockpot %(version)s")
def main() -> None:
    """Merge neural-network checkpoints: exactly, in flat memory, without PyTorch.

    \b
    Examples:
      stockpot methods                               which methods there are
      stockpot methods model_stock                   what one takes, and where it comes from
      stockpot inspect path/to/model                 what a checkpoint holds
      stockpot plan recipe.yaml                      what a merge would read, write and need
      stockpot merge recipe.yaml merged              do it
      stockpot merge --method model_stock --base B A C D -o merged
      stockpot extract-lora BASE TUNED adapter --rank 16
      stockpot collect-stats --factory my_model:make --output stats.safetensors
    """


@main.command(cls=GroupedCommand)
@click.argument("paths", nargs=-1, metavar="RECIPE [OUTPUT] | MODEL...")
@_method_options
@_override_options
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
@_job_options
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
    note_without_meaning(_note)
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
    recipe = _recipe(paths, method, base, parameters, dtype, random_seed, assignments, switches)
    from ._job import JobOptions
    from ._stages import folder_of, plan_stages

    options = JobOptions(threads, max_memory, shard_size, overwrite, resume, strict)
    folder = folder_of(output or "OUTPUT", intermediate_dir)
    if dry_run or verbose:
        found = plan_stages(recipe, output, options, folder)
        if dry_run:
            for warning in found.all_warnings:
                _warn(warning)
            _show_plan(found, as_json, False)
            return
        from ._tables import plan_text

        click.echo(plan_text(found), err=True)
    _run_stages(recipe, str(output), options, folder, quiet, as_json)
    if recipe.stages and intermediate_dir is None:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def _run_stages(recipe: Recipe, output: str, options: Any, folder: Any, quiet: bool, as_json: bool) -> None:
    """Run every stage that is not there yet, the last one under its output's name."""
    from pathlib import Path

    from ._job import Job
    from ._stages import stages

    if recipe.stages and not options.overwrite and Path(output).exists():
        raise click.ClickException(f"{output} exists already: choose another path, or add --overwrite")
    count = len(recipe.stages) + 1
    for number, stage in enumerate(stages(recipe, output, folder), 1):
        title = f"stage {number} of {count}: {stage.name or output}"
        with Job(stage.recipe, stage.output, stage.options(options)) as job:
            plan = job.plan()
            for warning in plan.warnings:
                _warn(warning)
            if stage.is_made(plan):
                if not quiet:
                    _note(f"{title} is there already")
                continue
            if count > 1 and not quiet:
                _note(title)
            stage.begin()
            _run(job, plan, str(stage.output), quiet or not stage.is_final, as_json and stage.is_final, output)
            stage.finish(plan)


def _run(job: Any, plan: Plan, output: str, quiet: bool, as_json: bool, asked: str) -> None:
    from pathlib import Path

    from ._tables import result_text
    from .jobs import run_job
    from .plans import MergeResult

    try:
        report = run_job(job, not (quiet or as_json) and sys.stderr.isatty())
    except KeyboardInterrupt:
        state = f"{asked} is as it was" if Path(asked).exists() else f"nothing was left at {asked}"
        _error(f"interrupted; {state}, and the same command with --resume continues")
        sys.exit(_INTERRUPTED)
    result = MergeResult(Path(output), plan, report)
    for warning in result.late_warnings:
        _warn(warning)
    if as_json:
        found = {
            "output": str(result.path),
            "report": None if result.report_path is None else str(result.report_path),
            "method": plan.method,
            "seconds": result.seconds,
            "summary": result.summary,
            "warnings": result.warnings,
        }
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(result_text(result))


@main.command(cls=GroupedCommand)
@click.argument("paths", nargs=-1, metavar="RECIPE | MODEL...")
@_method_options
@_override_options
@_job_options
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
    note_without_meaning(_note)
    switches = {"tensor_set": tensor_set}
    recipe = _recipe(paths, method, base, parameters, dtype, random_seed, assignments, switches)
    from ._job import JobOptions
    from ._stages import folder_of, plan_stages

    options = JobOptions(threads, max_memory, shard_size, strict=strict)
    found = plan_stages(recipe, output, options, folder_of(output or "OUTPUT", None))
    for warning in found.all_warnings:
        _warn(warning)
    _show_plan(found, as_json, tensors)


@main.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the schema of the method, or of all, as JSON.")
def methods(name: str | None, as_json: bool) -> None:
    """List the merge methods; with NAME, its parameters, their defaults and ranges, and where it comes from.

    \b
    Examples:
      stockpot methods
      stockpot methods yoyo_scale
      stockpot methods --json
    """
    from . import registry
    from ._tables import method_text, methods_text

    if name is not None:
        schema = registry.method_schema(name)
        click.echo(json.dumps(schema, indent=2, ensure_ascii=False) if as_json else method_text(schema))
        return
    schemas = [registry.method_schema(each) for each in registry.methods()]
    click.echo(json.dumps(schemas, indent=2, ensure_ascii=False) if as_json else methods_text(schemas))


@main.command()
@_offline_option
@click.argument("merged")
@click.argument("correction")
@click.argument("output")
@click.option("--base", metavar="PATH", help="For a mask: the base of the merge; default: the one that the mask names.")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="Workers; 0 for the usable CPUs.")
@click.option("--max-memory", metavar="SIZE", help="Most bytes of buffers, such as 2GiB.")
@click.option("--shard-size", metavar="SIZE", help="Bytes of a shard; default 5GB.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output, once the new one is complete.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary; errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on standard output.")
def reconstruct(
    merged: str,
    correction: str,
    output: str,
    base: str | None,
    threads: int,
    max_memory: str | None,
    shard_size: str | None,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Rebuild a task model from a merged one and its TALL mask or low-rank plus sparse correction.

    MERGED is the merged checkpoint, CORRECTION a folder under masks/ or corrections/ that a merge wrote, OUTPUT the
    folder (or .safetensors file) to make.

    \b
    Examples:
      stockpot merge --method tall_mask --base B A C -o OUT
      stockpot reconstruct OUT/merged OUT/masks/A rebuilt
      stockpot merge --method scale_svd --base MERGED A C -o OUT -p then=extract -p sparsity=0.8
      stockpot reconstruct MERGED OUT/corrections/A rebuilt
    """
    from ._job import Job, JobOptions
    from ._tables import reconstruction_text
    from .jobs import run_job

    options = JobOptions(threads, max_memory, shard_size, overwrite)
    with Job.reconstruction(merged, correction, base, output, options) as job:
        try:
            report = json.loads(run_job(job, not (quiet or as_json) and sys.stderr.isatty(), "rebuilding"))
        except KeyboardInterrupt:
            _error(f"interrupted; nothing was left at {output}")
            sys.exit(_INTERRUPTED)
    if as_json:
        click.echo(json.dumps({"output": output, **report}, indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(reconstruction_text(output, report))


@main.command("extract-lora")
@_offline_option
@click.argument("base")
@click.argument("model")
@click.argument("output")
@click.option("--rank", type=click.IntRange(min=1), required=True, metavar="R", help="Rank of the factors.")
@click.option(
    "--include", multiple=True, metavar="NAME", help="Factor these modules too, such as embed_tokens. Repeatable."
)
@click.option("--exclude", multiple=True, metavar="NAME", help="Do not factor these modules. Repeatable.")
@click.option(
    "--save-modules", multiple=True, metavar="NAME", help="Save these modules whole, such as *norm. Repeatable."
)
@click.option(
    "--fan-in-fan-out/--no-fan-in-fan-out",
    default=None,
    help="Matrices are stored [in, out], as GPT-2's are; default: by the config.",
)
@click.option("--dtype", default="float32", show_default=True, metavar="NAME", help="Element type of the factors.")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="Workers; 0 for the usable CPUs.")
@click.option("--max-memory", metavar="SIZE", help="Bytes for the matrices in work, such as 2GiB.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output, once the new one is complete.")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary; warnings and errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on standard output.")
def extract_lora(
    base: str,
    model: str,
    output: str,
    rank: int,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    save_modules: tuple[str, ...],
    fan_in_fan_out: bool | None,
    dtype: str,
    threads: int,
    max_memory: str | None,
    overwrite: bool,
    tensors: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a LoRA adapter, in PEFT's layout, of what MODEL has changed in BASE.

    Each changed matrix gets the truncated SVD of its difference. OUTPUT holds adapter_config.json,
    adapter_model.safetensors, and the relative error of each tensor in extract_report.json and .csv. Embeddings,
    convolutions, norms and biases are not factored by themselves: what is neither included nor saved whole is lost,
    and named.

    \b
    Examples:
      stockpot extract-lora org/base ./tuned adapter --rank 16
      stockpot extract-lora org/base ./tuned adapter --rank 32 --save-modules "*norm" --include embed_tokens
      stockpot merge --method passthrough org/base+./adapter -o restored
    """
    from ._job import Job, JobOptions
    from ._tables import extraction_text
    from .jobs import run_job

    parameters = {
        "rank": rank,
        "include": include,
        "exclude": exclude,
        "save_modules": save_modules,
        "fan_in_fan_out": fan_in_fan_out,
        "dtype": dtype,
    }
    with Job.lora_extraction(base, model, output, parameters, JobOptions(threads, max_memory, None, overwrite)) as job:
        try:
            report = json.loads(run_job(job, not (quiet or as_json) and sys.stderr.isatty(), "extracting"))
        except KeyboardInterrupt:
            _error(f"interrupted; nothing was left at {output}")
            sys.exit(_INTERRUPTED)
    for warning in report["warnings"]:
        _warn(warning)
    if as_json:
        click.echo(json.dumps({"output": output, **report}, indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(extraction_text(output, report, tensors))


@main.command()
@_offline_option
@click.argument("path")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def inspect(path: str, tensors: bool, as_json: bool) -> None:
    """Show what a checkpoint holds: element types, files, parameters, largest tensors, metadata. No tensor is read.

    \b
    Examples:
      stockpot inspect path/to/model
      stockpot inspect model.safetensors --tensors
      stockpot inspect path/to/model --json
    """
    from ._tables import checkpoint_json, checkpoint_text
    from .checkpoints import Checkpoint

    with Checkpoint(path) as checkpoint:
        found = checkpoint_json(checkpoint, tensors)
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else checkpoint_text(found))


@main.command("collect-stats")
@click.option("--factory", metavar="PACKAGE:FUNCTION", required=True, help="What makes the model and its batches.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Given to the factory.")
@click.option(
    "--num-batches",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Given to the factory; no more are drawn.",
)
@click.option(
    "--statistic",
    type=click.Choice(["second_moment", "variance"]),
    default="second_moment",
    show_default=True,
    help="Mean of the squares, or unbiased variance.",
)
@click.option("-o", "--output", metavar="PATH", required=True, help="File to make; its name ends in .safetensors.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output, once the new one is complete.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary; warnings and errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on standard output.")
def collect_stats(
    factory: str,
    batch_size: int,
    num_batches: int,
    statistic: str,
    output: str,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Collect statistics of the inputs of a model's layers, for methods such as scale_svd.

    PACKAGE:FUNCTION is imported from the current directory or from what is installed, and called with batch_size and
    num_batches. It returns one of these:

    \b
      (model, batches)       a torch.nn.Module and an iterable of its inputs: tensors, tuples of
                             arguments, or mappings of keyword arguments
      an iterable            per batch a mapping of parameter name to the array that goes into the
                             layer, channels last, or to (array, channel_axis); needs no torch
      a LayerStatistics      of stockpot.stats, filled already

    \b
    Example, my_model.py:
      def make(batch_size, num_batches):
          model = load_my_model()
          return model, (images for images, labels in my_loader(batch_size))

    \b
    Examples:
      stockpot collect-stats --factory my_model:make --output stats.safetensors
      stockpot collect-stats --factory my_model:make --num-batches 10 --statistic variance -o v.safetensors

    A recipe names the file beside the model: `models: [{model: A, statistics: stats.safetensors}]`.
    """
    from ._collect import check_output, load_factory, run_factory, summary, summary_text

    check_output(output, overwrite)
    shown = not (quiet or as_json) and sys.stderr.isatty()
    try:
        made = load_factory(factory)(batch_size=batch_size, num_batches=num_batches)
        found = run_factory(made, factory, statistic, num_batches, shown, _warn)
    except KeyboardInterrupt:
        _error(f"interrupted; nothing was written at {output}")
        sys.exit(_INTERRUPTED)
    found.save(output, overwrite)
    if as_json:
        click.echo(json.dumps(summary(found, output), indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(summary_text(summary(found, output)))


def _show_plan(plan: Plan, as_json: bool, tensors: bool) -> None:
    from ._tables import plan_text

    click.echo(plan.to_json(indent=2) if as_json else plan_text(plan, tensors))


def _recipe(
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

    from .recipes import load_recipe, override, parse_yaml

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


if __name__ == "__main__":
    main()
