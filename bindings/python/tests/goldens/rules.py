"""What a mapping rule is: from an implementation and its parameters to a method and parameters of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Parameters = dict[str, Any]
Convert = Callable[[Any], Parameters]
Names = dict[str, str | Convert | None]


class UnmappedError(Exception):
    """A case that no rule covers."""


@dataclass(frozen=True)
class Implementation:
    """`owner/repo@version (note)::function`, taken apart."""

    repository: str
    version: str
    note: str
    function: str

    @classmethod
    def parse(cls, text: str) -> Implementation:
        """Raises UnmappedError if the text has another form."""
        match = re.fullmatch(r"([^@]+)@(\S+?)(?: \((.*?)\))?::(.*)", text)
        if match is None:
            raise UnmappedError(f"implementation {text!r} is not owner/repo@version::function")
        repository, version, note, function = match.groups()
        return cls(repository, version, note or "", function)


@dataclass(frozen=True)
class Mapped:
    """A case in this library's words."""

    method: str
    parameters: Parameters
    tensor_name: str = ""
    compat: str | None = None
    """Passed as the parameter `compat` if the method's schema offers that value."""
    pending: str = ""
    """Not empty: what of the case this runner cannot express yet."""
    config_source: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Golden inputs that are neither base nor model, and the parameter (or argument) each one is."""
    call: str = ""
    """The function of the package that does it, where it is not a merge."""


@dataclass(frozen=True)
class Rule:
    """`names` maps a golden parameter to ours, to a conversion, or to None (means nothing here)."""

    method: str
    names: Mapping[str, str | Convert | None] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    compat: str | None = None
    function: str = ""
    """Regular expression that the implementation's function must match."""
    note: str = ""
    """Regular expression that version and note, joined by a space, must match."""
    pending: str = ""
    when: Callable[[Mapping[str, Any]], bool] | None = None
    """Condition on the parameters, where a value of one decides which method it is."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    call: str = ""

    def covers(self, implementation: Implementation, parameters: Mapping[str, Any]) -> bool:
        """Whether function, revision and parameter values are this rule's."""
        revision = f"{implementation.version} {implementation.note}"
        return bool(
            re.search(self.function, implementation.function)
            and re.search(self.note, revision)
            and (self.when is None or self.when(parameters))
        )

    def apply(self, parameters: Mapping[str, Any]) -> Mapped:
        """Translate the parameters. A null means the peer's default and is left out."""
        ours: Parameters = dict(self.constants)
        for name, value in parameters.items():
            if name not in self.names:
                raise UnmappedError(f"parameter {name!r} of {self.method} has no mapping")
            target = self.names[name]
            if target is None or value is None:
                continue
            ours.update(target(value) if callable(target) else {target: value})
        tensor_name = str(ours.pop("tensor_name", ""))
        config_source = ours.pop("config_source", None)
        return Mapped(self.method, ours, tensor_name, self.compat, self.pending, config_source, self.inputs, self.call)


MERGEKIT = "arcee-ai/mergekit"
SD_MECHA = "ljleb/sd-mecha"
FUSION_BENCH = "tanganke/fusion_bench"

Table = dict[tuple[str, str], tuple[Rule, ...]]
"""Rules by a case's method and repository."""
