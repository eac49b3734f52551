"""Fixtures that the tests of the package share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint_files import Models, write_models

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def library() -> Any:
    """The loaded shared library. Without one the test is skipped; one that cannot be loaded is a failure."""
    from stockpot import _lib

    if not os.environ.get(_lib.ENVIRONMENT_VARIABLE) and not Path(_lib.__file__).with_name("libstockpot.so").exists():
        pytest.skip(f"no libstockpot.so beside the package, and {_lib.ENVIRONMENT_VARIABLE} is not set")
    return _lib.lib()


@pytest.fixture(scope="session")
def header_path() -> Path:
    """include/stockpot.h."""
    return REPOSITORY / "include" / "stockpot.h"


@pytest.fixture(scope="session")
def digits() -> Path:
    """The real checkpoints of Tests/Fixtures/digits-vit."""
    path = REPOSITORY / "Tests" / "Fixtures" / "digits-vit"
    if not path.is_dir():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture
def models(tmp_path: Path) -> Models:
    """A base and three small models in folders, float32, with config.json and a tokenizer."""
    return write_models(tmp_path / "models")


@pytest.fixture
def in_tmp(tmp_path: Path) -> Iterator[Path]:
    """Run the test in its temporary folder."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)
