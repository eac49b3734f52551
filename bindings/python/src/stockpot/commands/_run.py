"""Running one job with progress, Ctrl-C and a summary."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from ._program import INTERRUPTED, print_error, print_warning

if TYPE_CHECKING:
    from ..plans import Plan


def run(job: Any, plan: Plan, output: str, quiet: bool, as_json: bool, asked: str) -> None:
    """Run a job, print its summary; on Ctrl-C say how `asked`, the final output, is left, and exit."""
    from pathlib import Path

    from ..jobs import run_job
    from ..plans import MergeResult

    try:
        report = run_job(job, not (quiet or as_json) and sys.stderr.isatty())
    except KeyboardInterrupt:
        state = f"{asked} is as it was" if Path(asked).exists() else f"nothing was left at {asked}"
        print_error(f"interrupted; {state}, and the same command with --resume continues")
        sys.exit(INTERRUPTED)
    result = MergeResult(Path(output), plan, report)
    for warning in result.late_warnings:
        print_warning(warning)
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
        from .._tables import result_text

        click.echo(result_text(result))
