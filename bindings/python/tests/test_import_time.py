"""Importing the package is quick, because neither numpy nor the shared library is loaded before they are needed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

IMPORT = """
import sys, time
before = set(sys.modules)
start = time.perf_counter()
import stockpot
seconds = time.perf_counter() - start
import json
print(json.dumps({"seconds": seconds, "modules": sorted(set(sys.modules) - before)}))
"""


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_import_time() -> None:
    found = [json.loads(run(IMPORT)) for _ in range(3)]
    seconds = min(result["seconds"] for result in found)
    print(f"import stockpot: {seconds * 1000:.1f} ms")
    assert seconds < 0.1
    heavy = {"numpy", "ml_dtypes", "yaml", "tqdm", "click", "torch"}
    assert heavy.isdisjoint(found[0]["modules"])


def test_using_errors_and_recipes_loads_no_numpy() -> None:
    code = "import sys, stockpot\nfrom stockpot import StockpotError, merge, recipes\nprint('numpy' in sys.modules)"
    assert run(code).strip() == "False"


def test_version_of_the_command_is_quick() -> None:
    code = (
        f"import sys\nsys.argv = ['stockpot', '--version']\n{IMPORT.replace('import stockpot', 'import stockpot.cli')}"
    )
    found = min((json.loads(run(code)) for _ in range(3)), key=lambda result: result["seconds"])
    print(f"import stockpot.cli: {found['seconds'] * 1000:.1f} ms")
    assert found["seconds"] < 0.15
    assert {"numpy", "ml_dtypes", "yaml", "tqdm"}.isdisjoint(found["modules"])


def test_modules_and_names_do_not_clash() -> None:
    """A submodule called as a public name would hide it as soon as it is imported."""
    code = """
import pkgutil, stockpot
for module in pkgutil.iter_modules(stockpot.__path__):
    if module.name not in ("__main__", "libstockpot"):
        __import__(f"stockpot.{module.name}")
import types
print([name for name in stockpot.__all__ if isinstance(getattr(stockpot, name), types.ModuleType)])
"""
    assert run(code).strip() == "[]"


def test_all_names_exist() -> None:
    import stockpot as sp

    for name in sp.__all__:
        assert getattr(sp, name) is not None
    assert set(sp.__all__) <= set(dir(sp))


def test_type_checkers_see_the_same_names() -> None:
    import re
    from pathlib import Path

    import stockpot as sp

    text = Path(str(sp.__file__)).read_text()
    declared = set(re.findall(r"^    from \.\S+ import (\w+) as \1$", text, re.MULTILINE))
    assert declared == set(sp.__all__) - {"__version__"}


def test_version_is_the_projects() -> None:
    tomllib = pytest.importorskip("tomllib")
    from pathlib import Path

    import stockpot as sp

    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["version"] == sp.__version__


def test_names_that_do_not_exist(library: object) -> None:
    import stockpot as sp

    with pytest.raises(AttributeError, match="no merge method, 'model_stok'"):
        _ = sp.model_stok
    with pytest.raises(AttributeError):
        _ = sp._nothing
    assert not hasattr(sp, "nothing")


def test_submodules_need_no_library() -> None:
    code = (
        "import os\nos.environ['STOCKPOT_LIBRARY'] = '/nowhere'\nfrom stockpot import cli, dropin, errors\nprint('ok')"
    )
    assert run(code).strip() == "ok"
