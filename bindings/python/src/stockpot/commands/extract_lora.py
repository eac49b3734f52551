"""`stockpot extract-lora`: an adapter from a difference."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from ._options import (
    offline_option,
)
from ._program import INTERRUPTED, print_error, print_warning

if TYPE_CHECKING:
    pass


@click.command("extract-lora")
@offline_option
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
    from .._job import Job, JobOptions
    from .._tables import extraction_text
    from ..jobs import run_job

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
            print_error(f"interrupted; nothing was left at {output}")
            sys.exit(INTERRUPTED)
    for warning in report["warnings"]:
        print_warning(warning)
    if as_json:
        click.echo(json.dumps({"output": output, **report}, indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(extraction_text(output, report, tensors))
