"""Where a foreign checkpoint's tokenizer comes from, and how one is written beside a foreign model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlcli.errors import InputError, UsageError
from vlcli.models.adapters.format import Asked
from vlcli.models.adapters.source import Source, read_json
from vlcli.text.model_tokenizers import ModelTokenizer, open_tokenizer

_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe_simple_vocab_16e6.txt.gz",
    "sentencepiece.bpe.model",
)


def tokenizer_of(source: Source, asked: Asked, *, default: str | None, padding_id: int) -> ModelTokenizer:
    """What --tokenizer names, else what lies beside the weights, else the one that the format means.

    UsageError where there is none of them.
    """
    if asked.tokenizer is not None:
        return open_tokenizer(asked.tokenizer, padding_id=padding_id)
    if source.folder is not None and any((source.folder / name).is_file() for name in _FILES):
        return open_tokenizer(str(source.folder), padding_id=padding_id)
    if default is None:
        raise UsageError(
            f"{source.path}: no tokenizer beside the weights", remedy="name one: --tokenizer DIR"
        )
    return open_tokenizer(default, padding_id=padding_id)


def length_of(source: Source, default: int, most: int) -> int:
    """Tokens of a text: `model_max_length` of the tokenizer's configuration where it is one, at most `most`."""
    found: Any = None
    if source.folder is not None and (source.folder / _CONFIG).is_file():
        found = read_json(source.folder / _CONFIG).get("model_max_length")
    # transformers writes 10³⁰ for "no bound"; a bound that is merely the table's is none of a text's either
    length = found if isinstance(found, int) and 3 <= found < most else default
    if length > most:
        raise InputError(f"texts of {length} tokens, and {most} positions", file=str(source.weights))
    return length


def write_tokenizer(tokenizer: ModelTokenizer, folder: Path, *, length: int) -> None:
    """The tokenizer's files, `length` as their model_max_length."""
    tokenizer.save(folder)
    config = read_json(folder / _CONFIG) | {"model_max_length": length}
    text = json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True)
    (folder / _CONFIG).write_text(text + "\n", encoding="utf-8", newline="\n")


_CONFIG = "tokenizer_config.json"
