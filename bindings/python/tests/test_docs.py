"""The documentation that is made from the library is up to date."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_page_of_methods_is_what_the_schemas_say() -> None:
    page = runpy.run_path(str(DOCS / "methods.py"))["page"]()
    assert (DOCS / "methods.md").read_text(encoding="utf-8") == page, "run `make docs`"
