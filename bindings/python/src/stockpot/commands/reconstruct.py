"""`stockpot reconstruct`: a task model from a merged one."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from ._options import (
    offline_option,
)
from ._program import INTERRUPTED, print_error

if TYPE_CHECKING:
    pass


@click.command()
@offline_option
@click.argument("merged")
@click.argument("correction")
@click.argument("output")
@click.option("--base", metavar="PATH", help="For a mask: the base of the merge; default: the one that the mask names.")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="Workers; 0 for the usable CPUs.")
@click.option("--max-memory", metavar="SIZE", help="Most bytes of plan and buffers, such as 2GiB.")
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
    from .._job import Job, JobOptions
    from .._tables import reconstruction_text
    from ..jobs import run_job

    options = JobOptions(threads, max_memory, shard_size, overwrite)
    with Job.reconstruction(merged, correction, base, output, options) as job:
        try:
            report = json.loads(run_job(job, not (quiet or as_json) and sys.stderr.isatty(), "rebuilding"))
        except KeyboardInterrupt:
            print_error(f"interrupted; nothing was left at {output}")
            sys.exit(INTERRUPTED)
    if as_json:
        click.echo(json.dumps({"output": output, **report}, indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(reconstruction_text(output, report))
