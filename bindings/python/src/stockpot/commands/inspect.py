"""`stockpot inspect`: what a checkpoint holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ._options import (
    offline_option,
)

if TYPE_CHECKING:
    pass


@click.command()
@offline_option
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
    from .._tables import checkpoint_json, checkpoint_text
    from ..checkpoints import Checkpoint

    with Checkpoint(path) as checkpoint:
        found = checkpoint_json(checkpoint, tensors)
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else checkpoint_text(found))
