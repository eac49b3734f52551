"""How a golden case is said in this library's words: implementation and parameters -> method and parameters.

A rule is found by the case's method, repository and (where one repository has several) function or revision.
A case whose implementation has no rule, or that carries a parameter its rule does not know, is an error:
nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import mapping_gram, mapping_masks, mapping_mergekit, mapping_spectral
from .rules import Implementation, Mapped, UnmappedError

TABLES = (mapping_gram.RULES, mapping_mergekit.RULES, mapping_masks.RULES, mapping_spectral.RULES)


def find(method: str, implementation: str, parameters: Mapping[str, Any]) -> Mapped:
    """The case in this library's words. Raises UnmappedError."""
    parsed = Implementation.parse(implementation)
    rules = [rule for table in TABLES for rule in table.get((method, parsed.repository), ())]
    if not rules:
        raise UnmappedError(f"no mapping for method {method!r} of {parsed.repository}")
    for rule in rules:
        if rule.covers(parsed, parameters):
            return rule.apply(parameters)
    raise UnmappedError(f"no mapping for {method!r} of {implementation!r}")
