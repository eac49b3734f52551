"""`stockpot collect-stats`: statistics of layers' inputs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from ._program import INTERRUPTED, print_error, print_warning

if TYPE_CHECKING:
    pass


@click.command("collect-stats")
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
    from .._collect import check_output, load_factory, run_factory, summary, summary_text

    check_output(output, overwrite)
    shown = not (quiet or as_json) and sys.stderr.isatty()
    try:
        made = load_factory(factory)(batch_size=batch_size, num_batches=num_batches)
        found = run_factory(made, factory, statistic, num_batches, shown, print_warning)
    except KeyboardInterrupt:
        print_error(f"interrupted; nothing was written at {output}")
        sys.exit(INTERRUPTED)
    found.save(output, overwrite)
    if as_json:
        click.echo(json.dumps(summary(found, output), indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(summary_text(summary(found, output)))
