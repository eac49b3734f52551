"""The command `stockpot`: merge, plan, methods, reconstruct, extract-lora, collect-stats, inspect.

Errors are one sentence on standard error, "error: ...", with exit status 1, or 2 for a wrong command line; Ctrl-C
exits with 130. Results go to standard output; progress and warnings to standard error. Heavy modules are imported by
the commands that need them, so that `stockpot --help` is quick.
"""

from __future__ import annotations

import click

from . import __version__
from .commands._program import Program
from .commands.collect_stats import collect_stats
from .commands.extract_lora import extract_lora
from .commands.inspect import inspect
from .commands.merge import merge
from .commands.methods import methods
from .commands.plan import plan
from .commands.reconstruct import reconstruct


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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


for _command in (merge, plan, methods, reconstruct, extract_lora, inspect, collect_stats):
    main.add_command(_command)


if __name__ == "__main__":
    main()
