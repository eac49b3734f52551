"""Tokenizers of models, by the `tokenizers` library: read, cut, joined, and written for the output.

Only the library reads and writes tokenizer.json. The files beside it (tokenizer_config.json, special_tokens_map.json,
added_tokens.json) are JSON of flags and names, which follow what the library says.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .errors import error_for

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

_SENTENCEPIECE: Final = (
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spiece.model",
    "spm.model",
)
_TABLES: Final = ("vocab.json", "vocab.txt")
_COPIED: Final = ("chat_template.jinja", "chat_template.json")
_FLAGS: Final = ("single_word", "lstrip", "rstrip", "normalized", "special")


def library() -> Any:
    """The module `tokenizers`.

    Raises:
        RecipeError: it is not installed.
    """
    try:
        import tokenizers
    except ImportError:
        message = "the recipe's tokenizer section needs the tokenizers library: pip install 'stockpot[tokenizers]'"
        raise error_for("SP_E_RECIPE", message) from None
    return tokenizers


class ModelTokenizer:
    """The tokenizer of one model.

    Attributes:
        folder: where the model lies.
        tokenizer: as the library holds it.
        vocabulary: every token and its id, those without a row left out.
        limit: rows of the model's embeddings, by its config; else the tokenizer's highest id and one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer = _load(folder)
        found = self.tokenizer.get_vocab(with_added_tokens=True)
        highest = max(found.values(), default=-1) + 1
        self.limit = vocabulary_size(folder) or highest
        self.vocabulary = {token: row for token, row in found.items() if row < self.limit}
        self.changed = len(self.vocabulary) < len(found)
        """Differs `tokenizer` from the model's file, once it is `stripped`?"""

    @property
    def added(self) -> dict[int, AddedToken]:
        """The added tokens that have a row, by id."""
        decoder = self.tokenizer.get_added_tokens_decoder()
        return {row: token for row, token in sorted(decoder.items()) if row < self.limit}

    def stripped(self) -> Tokenizer:
        """A tokenizer of its own without the tokens that have no row.

        Raises:
            RecipeError: the library's model of tokens cannot do without them.
        """
        text = self.tokenizer.to_str()
        if self.changed:
            text = json.dumps(_strip(json.loads(text), self.limit, self.folder), ensure_ascii=False)
        made: Tokenizer = library().Tokenizer.from_str(text)
        return made


def vocabulary_size(folder: Path) -> int | None:
    """The `vocab_size` of a model's config, or of a nested one; None if it has none."""
    config = read_json(folder / "config.json") or {}
    nested = [config.get("text_config"), *(value for key, value in config.items() if key.endswith("_config"))]
    for part in (config, *nested):
        size = part.get("vocab_size") if isinstance(part, dict) else None
        if isinstance(size, int) and size > 0:
            return size
    return None


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file.

    Raises:
        FormatError: something else is in it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise error_for("SP_E_FORMAT", f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise error_for("SP_E_FORMAT", f"{path} is no JSON object: correct or remove it")
    return found


def has_tokenizer(folder: Path) -> bool:
    """Is there a tokenizer that can be read?

    Raises:
        RecipeError: there is one that the library does not read.
    """
    if (folder / "tokenizer.json").is_file():
        return True
    for name in (*_SENTENCEPIECE, *_TABLES):
        if (folder / name).is_file():
            message = (
                f"{folder} has {name} but no tokenizer.json, which the tokenizers library reads: make one with "
                f"transformers, AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
            )
            raise error_for("SP_E_RECIPE", message)
    return False


def _load(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    made = library().Tokenizer
    try:
        tokenizer: Tokenizer = made.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise error_for("SP_E_FORMAT", f"{path} cannot be read by the tokenizers library: {error}") from None
    # Loaders of models add what the config names and tokenizer.json lacks, in the order of the ids.
    config = read_json(folder / "tokenizer_config.json") or {}
    named = config.get("added_tokens_decoder") or {}
    for row, entry in sorted(named.items(), key=lambda item: int(item[0])):
        if isinstance(entry, dict) and tokenizer.token_to_id(entry["content"]) is None:
            flags = {flag: bool(entry[flag]) for flag in _FLAGS if flag in entry}
            tokenizer.add_tokens([library().AddedToken(entry["content"], **flags)])
            _check_id(tokenizer, path, entry["content"], int(row))
    for content, row in sorted((read_json(folder / "added_tokens.json") or {}).items(), key=lambda item: int(item[1])):
        if tokenizer.token_to_id(content) is None:
            tokenizer.add_tokens([content])
            _check_id(tokenizer, path, content, int(row))
    return tokenizer


def _check_id(tokenizer: Tokenizer, path: Path, content: str, row: int) -> None:
    given = tokenizer.token_to_id(content)
    if given != row:
        raise error_for(
            "SP_E_FORMAT",
            f"{path} lacks the token {content!r}, whose id is {row} by the files beside it, but the tokenizers library "
            f"makes it {given}: save the tokenizer again with the library that made it",
        )


def _strip(data: dict[str, Any], limit: int, folder: Path) -> dict[str, Any]:
    """The content of tokenizer.json without the tokens from `limit` on."""
    model = data["model"]
    gone: set[str] = set()
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        gone = {token for token, row in vocabulary.items() if row >= limit}
        for token in gone:
            del vocabulary[token]
    elif isinstance(vocabulary, list):
        gone = {entry[0] for entry in vocabulary[limit:]}
        del vocabulary[limit:]
    if gone and model.get("merges") is not None:
        model["merges"] = [merge for merge in model["merges"] if not _touches(merge, gone)]
    if gone and model.get("unk_token") in gone:
        message = f"the unknown token of {folder}/tokenizer.json has no row in the embeddings: correct vocab_size"
        raise error_for("SP_E_RECIPE", message)
    data["added_tokens"] = [entry for entry in data.get("added_tokens") or [] if entry["id"] < limit]
    return data


def _touches(merge: Any, gone: set[str]) -> bool:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left in gone or right in gone or left + right in gone


def add_tokens(tokenizer: Tokenizer, tokens: Iterable[str | AddedToken]) -> None:
    """Add tokens one after another, each with the next id.

    Raises:
        RecipeError: an id is taken, because the vocabulary has holes.
    """
    tokens = list(tokens)
    if not tokens:
        return
    tokenizer.add_tokens(tokens)
    found = tokenizer.get_vocab(with_added_tokens=True)
    if len(set(found.values())) != len(found):
        message = (
            "ids of the output's tokenizer have holes, so that new tokens get ids that are taken: name another source"
        )
        raise error_for("SP_E_RECIPE", message)


def same(one: AddedToken, other: AddedToken) -> bool:
    """Have two added tokens the same text and flags?"""
    return one.content == other.content and all(getattr(one, flag) == getattr(other, flag) for flag in _FLAGS)


def save(source: ModelTokenizer, tokenizer: Tokenizer, changed: bool, folder: Path) -> list[str]:
    """Write the files of the output's tokenizer.

    Args:
        source: the model whose tokenizer it grew out of.
        tokenizer: of the output.
        changed: does it differ from the source's? If not, the source's own files are copied.
        folder: an empty folder.

    Returns:
        What the user should know.
    """
    if not changed:
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
            _copy(source.folder / name, folder)
        for name in (*_COPIED, *_SENTENCEPIECE, *_TABLES, "merges.txt"):
            _copy(source.folder / name, folder)
        return []
    tokenizer.save(str(folder / "tokenizer.json"))
    for name in _COPIED:
        _copy(source.folder / name, folder)
    found = tokenizer.get_vocab(with_added_tokens=True)
    notes: list[str] = []
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        entries = read_json(source.folder / name)
        if entries is None:
            continue
        notes += _drop_lost(entries, source, found, name)
        if "added_tokens_decoder" in entries:
            entries["added_tokens_decoder"] = {
                str(row): {"content": token.content, **{flag: getattr(token, flag) for flag in _FLAGS}}
                for row, token in sorted(tokenizer.get_added_tokens_decoder().items())
            }
        _write(folder / name, entries)
    if (source.folder / "added_tokens.json").is_file():
        inside = tokenizer.get_vocab(with_added_tokens=False)
        outside = {token: row for token, row in found.items() if token not in inside}
        _write(folder / "added_tokens.json", dict(sorted(outside.items(), key=lambda item: item[1])))
    return notes


def _drop_lost(entries: dict[str, Any], source: ModelTokenizer, found: Mapping[str, int], name: str) -> list[str]:
    """Take out special tokens that had no row: a loader would add them again, with an id beyond the embeddings."""
    before = source.tokenizer.get_vocab(with_added_tokens=True)
    notes = []

    def is_lost(value: Any) -> bool:
        text = value.get("content") if isinstance(value, dict) else value
        return isinstance(text, str) and text in before and text not in found

    for key, value in list(entries.items()):
        if key.endswith("_token") and is_lost(value):
            del entries[key]
            notes.append(f"the {key} of {source.folder}/{name} has no row in the embeddings, so it is left out")
        elif key in ("additional_special_tokens", "extra_special_tokens") and isinstance(value, list):
            entries[key] = [each for each in value if not is_lost(each)]
    return notes


def _copy(path: Path, folder: Path) -> None:
    if path.is_file():
        shutil.copyfile(path, folder / path.name)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
