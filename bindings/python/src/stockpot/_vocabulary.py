"""From a recipe's `tokenizer_source` or `tokenizer` to its `vocabulary`: which row of whose embedding is which row.

The grammar and the rules are mergekit's; the one deviation, which `compat: mergekit` takes back, is that embeddings are
never cut: rows of the tokenizer's own model that no token has stay (docs/mergekit.md).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import _tokenizers, checkpoints
from ._tokenizers import ModelTokenizer
from .errors import error_for

Row = tuple[str, int]
"""A model and one of its rows."""


class TokenRule(NamedTuple):
    """What the recipe says of one token.

    Attributes:
        source: None for the general rule; "zero"; a model, whose row of that token it is; or a model and a token or id.
        force: also models that have the token take it.
    """

    source: str | tuple[str, str | int] | None
    force: bool


class Section(NamedTuple):
    """A recipe's tokenizer section.

    Attributes:
        source: "union", "base", or a model.
        tokens: by token.
        multiple: of which the number of rows is to be one; None for as many rows as there were.
        notes: what the user should know.
    """

    source: str
    tokens: dict[str, TokenRule]
    multiple: int | None
    notes: list[str]


class Resolved(NamedTuple):
    """A recipe with its vocabulary, and the folder of tokenizer files that has to stay until it has run."""

    value: dict[str, Any]
    folder: tempfile.TemporaryDirectory[str]


def resolve(value: dict[str, Any], strict: bool = False) -> Resolved:
    """Give a recipe that has a tokenizer section its `vocabulary`.

    Args:
        value: the recipe; it is not changed.
        strict: unknown keys of the section are errors.

    Raises:
        RecipeError: the section, or a tokenizer that it needs; tokenizers is not installed.
        FormatError: a file of a tokenizer.
    """
    if value.get("vocabulary") is not None:
        raise error_for("SP_E_RECIPE", "the recipe has both a tokenizer section and 'vocabulary': keep one of them")
    section = read_section(value, strict)
    folder = tempfile.TemporaryDirectory(prefix="stockpot-tokenizer-")
    vocabulary = _build(value, section, Path(folder.name))
    return Resolved({**value, "vocabulary": vocabulary}, folder)


# Reading the section


def reference(value: Any) -> str:
    """The text of a model reference: itself, or what {model: {path: ...}} names.

    Raises:
        RecipeError: it is none.
    """
    if isinstance(value, str) and value:
        return value
    if isinstance(value, Mapping):
        if isinstance(value.get("path"), str) and value.get("revision") is not None:
            return f"{value['path']}@{value['revision']}"
        for key in ("model", "path"):
            if value.get(key) is not None:
                return reference(value[key])
    raise error_for("SP_E_RECIPE", f"{value!r} is not a model: give the path of a folder")


def read_section(value: Mapping[str, Any], strict: bool = False) -> Section:
    """Read `tokenizer_source` or `tokenizer` of a recipe.

    Raises:
        RecipeError: both, or something that they do not take.
    """
    notes: list[str] = []
    legacy, section = value.get("tokenizer_source"), value.get("tokenizer")
    if legacy is not None and section is not None:
        raise error_for("SP_E_RECIPE", "the recipe has both tokenizer_source and tokenizer: write tokenizer.source")
    if section is None:
        return Section(reference(legacy), {}, None, notes)
    if not isinstance(section, Mapping):
        raise error_for(
            "SP_E_RECIPE", f"tokenizer is {section!r}: give a mapping with source, tokens, pad_to_multiple_of"
        )
    _check_keys(section, ("source", "tokens", "pad_to_multiple_of"), "tokenizer", strict, notes)
    source = section.get("source")
    multiple = section.get("pad_to_multiple_of")
    if multiple is not None and (isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1):
        raise error_for("SP_E_RECIPE", f"tokenizer.pad_to_multiple_of is {multiple!r}: give a whole number from 1")
    tokens = section.get("tokens") or {}
    if not isinstance(tokens, Mapping):
        raise error_for("SP_E_RECIPE", f"tokenizer.tokens is {tokens!r}: give a mapping from tokens to their sources")
    rules = {token: _rule(token, rule, strict, notes) for token, rule in tokens.items()}
    return Section("union" if source is None else reference(source), rules, multiple, notes)


def _rule(token: str, rule: Any, strict: bool, notes: list[str]) -> TokenRule:
    place = f"tokenizer.tokens[{token!r}]"
    if rule is None:
        return TokenRule(None, False)
    if not isinstance(rule, Mapping):
        raise error_for("SP_E_RECIPE", f"{place} is {rule!r}: give a mapping with source and force")
    _check_keys(rule, ("source", "force"), place, strict, notes)
    force = rule.get("force", False)
    if not isinstance(force, bool):
        raise error_for("SP_E_RECIPE", f"{place}.force is {force!r}: give true or false")
    source = rule.get("source")
    if source is None and force:
        raise error_for("SP_E_RECIPE", f"{place} has force without a source: name the model whose row it is")
    if not isinstance(source, Mapping) or "kind" not in source:
        return TokenRule(None if source is None else reference(source), force)
    kind = source["kind"]
    if kind == "zero":
        _check_keys(source, ("kind",), f"{place}.source", strict, notes)
        return TokenRule("zero", force)
    if kind != "model_token":
        raise error_for("SP_E_RECIPE", f"{place}.source.kind is {kind!r}: give zero or model_token")
    _check_keys(source, ("kind", "model", "token", "token_id"), f"{place}.source", strict, notes)
    text, number = source.get("token"), source.get("token_id")
    if (text is None) == (number is None):
        raise error_for("SP_E_RECIPE", f"{place}.source needs either token or token_id")
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
        raise error_for("SP_E_RECIPE", f"{place}.source.token_id is {number!r}: give a whole number from 0")
    return TokenRule((reference(source.get("model")), str(text) if number is None else number), force)


def _check_keys(value: Mapping[str, Any], known: Sequence[str], place: str, strict: bool, notes: list[str]) -> None:
    for key in value:
        if key not in known:
            text = f"{place} has the unknown key {key!r}, which has no effect: it takes {', '.join(known)}"
            if strict:
                raise error_for("SP_E_RECIPE", text)
            notes.append(text)


def models_of(value: Mapping[str, Any]) -> list[str]:
    """The models that a recipe names, the base first, each once."""
    found: dict[str, None] = {}
    if value.get("base_model") is not None:
        found[reference(value["base_model"])] = None

    def visit(part: Mapping[str, Any]) -> None:
        for entry in part.get("models") or ():
            found[reference(entry)] = None
        for output in part.get("slices") or ():
            if output.get("base_model") is not None:
                found[reference(output["base_model"])] = None
            for source in output.get("sources") or ():
                found[reference(source)] = None
        for module in (part.get("modules") or {}).values():
            visit(module)

    visit(value)
    if not found:
        raise error_for("SP_E_RECIPE", "the recipe has no 'models': list at least one {model: PATH}")
    return list(found)


# Building the output's tokenizer


def _build(value: Mapping[str, Any], section: Section, folder: Path) -> dict[str, Any]:
    notes = section.notes
    models = models_of(value)
    tokenizers = _tokenizers_of(models, notes)
    first = tokenizers[models[0]]
    owner = first
    if section.source not in ("union", "base"):
        known = tokenizers.get(section.source)
        owner = ModelTokenizer(local_folder(section.source)) if known is None else known
    tokenizer = owner.stripped()
    before = tokenizer.get_vocab(with_added_tokens=True)
    if section.source == "union":
        _tokenizers.add_tokens(tokenizer, _union(first, [tokenizers[model] for model in models], notes))
    missing = [token for token in section.tokens if tokenizer.token_to_id(token) is None]
    _tokenizers.add_tokens(tokenizer, missing)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    changed = owner.changed or vocabulary != before
    notes += _tokenizers.save(owner, tokenizer, changed, folder)

    base = None if value.get("base_model") is None else reference(value["base_model"])
    rows = _Rows(vocabulary, tokenizers, owner, section, base)
    real, size = rows.sizes(keep=not _is_compatible(value))
    rows.assign(notes)
    rows.keep(real)
    return {"size": size, "padding": size - real, **rows.as_json(), "files": str(folder), "notes": notes}


def _is_compatible(value: Mapping[str, Any]) -> bool:
    parameters = value.get("parameters")
    inner = parameters.get("compat") if isinstance(parameters, Mapping) else None
    return "mergekit" in (value.get("compat"), inner)


def local_folder(model: str) -> Path:
    """The folder of a model reference, whose adapter does not matter to its tokenizer.

    Raises:
        NotFoundError: it is neither a local path nor in the Hugging Face cache.
    """
    if Path(model).exists():
        return Path(model)
    base = model.split("+", 1)[0]
    if Path(base).exists():
        return Path(base)
    with checkpoints.open(base) as found:  # the library knows the cache
        return found.files[0].parent


def _tokenizers_of(models: Sequence[str], notes: list[str]) -> dict[str, ModelTokenizer]:
    """Each model's tokenizer; that of the first for models that have none."""
    found: dict[str, ModelTokenizer] = {}
    for model in models:
        folder = local_folder(model)
        if _tokenizers.has_tokenizer(folder):
            found[model] = ModelTokenizer(folder)
        elif model == models[0]:
            message = f"{model} has no tokenizer.json, which the recipe's tokenizer section needs: add it to the folder"
            raise error_for("SP_E_RECIPE", message)
        else:
            notes.append(f"{model} has no tokenizer.json: its rows are taken to be those of {models[0]}'s tokenizer")
            found[model] = found[models[0]]
    return found


def _union(first: ModelTokenizer, tokenizers: Iterable[ModelTokenizer], notes: list[str]) -> list[Any]:
    """What the first tokenizer lacks: plain tokens of all in the order of models and ids, then added tokens."""
    plain: dict[str, None] = {}
    added: dict[str, Any] = {}
    for each in tokenizers:
        own = {token.content: token for token in each.added.values()}
        for token, _ in sorted(each.vocabulary.items(), key=lambda item: item[1]):
            if token not in own:
                plain[token] = None
        for content, settings in own.items():
            if content in added and not _tokenizers.same(added[content], settings):
                notes.append(
                    f"the models give the added token {content!r} different settings: the first one's are taken"
                )
            added.setdefault(content, settings)
    settled = {token.content for token in first.added.values()}
    new = [token for token in plain if token not in first.vocabulary and token not in added]
    return new + [token for content, token in added.items() if content not in settled]


# Rows


class _Rows:
    """Who gives which row of the output."""

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        tokenizers: Mapping[str, ModelTokenizer],
        owner: ModelTokenizer,
        section: Section,
        base: str | None,
    ) -> None:
        self.vocabulary = vocabulary
        self.tokenizers = tokenizers
        self.owner = owner
        self.section = section
        self.base = base
        self.own: dict[str, dict[int, int]] = {
            model: {row: own.vocabulary[token] for token, row in vocabulary.items() if token in own.vocabulary}
            for model, own in tokenizers.items()
        }
        self.fills: dict[int, tuple[list[Row], bool]] = {}

    def sizes(self, keep: bool) -> tuple[int, int]:
        """Rows that tokens or the owner have, and rows with padding."""
        real = max(self.vocabulary.values(), default=-1) + 1
        multiple = self.section.multiple
        if multiple is not None:
            return real, -(-real // multiple) * multiple
        if keep:
            real = max(real, self.owner.limit)
        return real, real

    def assign(self, notes: list[str]) -> None:
        """The rows of tokens that some model lacks, or that the recipe names."""
        lost: list[str] = []
        for token, row in sorted(self.vocabulary.items(), key=lambda item: item[1]):
            rule = self.section.tokens.get(token, TokenRule(None, False))
            having = [model for model in self.own if row in self.own[model]]
            if len(having) == len(self.own) and not rule.force:
                continue
            if rule.source is not None:
                self.fills[row] = (self._named(token, row, rule.source), rule.force)
                continue
            if self.base is not None and self.base in having:
                having = [self.base]
            if not having:
                lost.append(token)
            self.fills[row] = ([(model, self.own[model][row]) for model in having], False)
        if lost:
            shown = ", ".join(repr(token) for token in lost[:3]) + (" and others" if len(lost) > 3 else "")
            notes.append(f"{len(lost)} tokens ({shown}) are in no model's tokenizer: their rows are zeros")

    def _named(self, token: str, row: int, source: str | tuple[str, str | int]) -> list[Row]:
        if source == "zero":
            return []
        place = f"tokenizer.tokens[{token!r}].source"
        model = source if isinstance(source, str) else source[0]
        if model not in self.own:
            raise error_for(
                "SP_E_RECIPE", f"{place} is {model}, which is not one of the recipe's models: list it there"
            )
        if isinstance(source, str):
            if row not in self.own[model]:
                raise error_for(
                    "SP_E_RECIPE", f"{place} is {model}, whose tokenizer has no such token: name another source"
                )
            return [(model, self.own[model][row])]
        wanted = source[1]
        own = self.tokenizers[model]
        found = own.vocabulary.get(wanted) if isinstance(wanted, str) else wanted
        if found is None or found >= own.limit:
            raise error_for("SP_E_RECIPE", f"{place} names {wanted!r}, of which {model} has no row: name another token")
        return [(model, found)]

    def keep(self, real: int) -> None:
        """Rows without a token: each model's own where none of its tokens has it, else the owner's, else zeros."""
        taken = set(self.vocabulary.values())
        free = [row for row in range(real) if row not in taken]
        if not free:
            return
        used = {model: set(own.vocabulary.values()) for model, own in self.tokenizers.items()}
        giver = next((model for model, own in self.tokenizers.items() if own is self.owner), None)
        for row in free:
            for model, own in self.tokenizers.items():
                if row < own.limit and row not in used[model]:
                    self.own[model][row] = row
            has_owner = giver is not None and row < self.owner.limit
            self.fills[row] = ([(giver, row)] if has_owner and giver is not None else [], False)

    def as_json(self) -> dict[str, Any]:
        """As `vocabulary.rows` and `vocabulary.fill` have it, in runs."""
        return {"rows": {model: _runs(own) for model, own in self.own.items()}, "fill": _fills(self.fills)}


def _runs(rows: Mapping[int, int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for output, stored in sorted(rows.items()):
        if runs and runs[-1][0] + runs[-1][2] == output and runs[-1][1] + runs[-1][2] == stored:
            runs[-1][2] += 1
        else:
            runs.append([output, stored, 1])
    return runs


def _fills(fills: Mapping[int, tuple[list[Row], bool]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for row, (sources, force) in sorted(fills.items()):
        last = found[-1] if found else None
        if last is not None and last["row"] + last["count"] == row and last["force"] == force:
            expected = [(model, first + last["count"]) for model, first in last["from"]]
            if expected == [(model, first) for model, first in sources]:
                last["count"] += 1
                continue
        found.append({"row": row, "count": 1, "from": [list(source) for source in sources], "force": force})
    return found
