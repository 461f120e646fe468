"""Texts to draw: from the command line, or the first text of each row of the input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from vlcli.errors import InputError, UsageError
from vlcli.records.batch import Batch
from vlcli.records.identity import Identity
from vlcli.shards.rows import place, plain, row_texts
from vlcli.text.model_tokenizers import ModelTokenizer

# What a row says of the picture that it had; its own comes in their place.
OF_A_PICTURE = {"image", "image_id", "width", "height", "text", "text_candidates"}


class Prompt(NamedTuple):
    """`name` is the id of its row; its noise is drawn from the seed and `name`. `columns` are carried on."""

    name: str
    text: str
    columns: dict[str, Any]


def given_prompts(texts: Sequence[str]) -> Iterator[Prompt]:
    """Of texts on a command line, by their positions. UsageError for an empty one."""
    for number, text in enumerate(texts):
        if not text.strip():
            raise UsageError("--text is empty: there is nothing to draw")
        yield Prompt(f"text/{number}", text, {})


def row_prompts(batches: Iterable[Batch]) -> Iterator[Prompt]:
    """Of rows, by their ids. InputError, with its place, for a row without a text."""
    identity = Identity()
    for raw in batches:
        batch = identity.assign(raw)
        texts, names = row_texts(batch), batch.frame["id"].to_list()
        for i, row in enumerate(batch.rows()):
            if not texts[i]:
                raise InputError("no text to draw", **place(batch, i))
            columns = {name: plain(value) for name, value in row.items() if name not in OF_A_PICTURE}
            yield Prompt(names[i], texts[i][0], columns)


def too_long(tokenizer: ModelTokenizer, prompts: Sequence[Prompt], context: int) -> list[Prompt]:
    """Those whose end a model of `context` tokens does not see."""
    specials = int(tokenizer.encode([""], length=context)[1].sum())
    return [one for one in prompts if len(tokenizer.content(one.text)) + specials > context]
