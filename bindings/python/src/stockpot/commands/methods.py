"""`stockpot methods`: the registry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    pass


@click.command()
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
    from .. import registry
    from .._tables import method_text, methods_text

    if name is not None:
        schema = registry.method_schema(name)
        click.echo(json.dumps(schema, indent=2, ensure_ascii=False) if as_json else method_text(schema))
        return
    schemas = [registry.method_schema(each) for each in registry.methods()]
    click.echo(json.dumps(schemas, indent=2, ensure_ascii=False) if as_json else methods_text(schemas))
