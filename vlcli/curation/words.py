"""Chinese words: rjieba by default, jieba as the reference it is measured against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from vlcli.errors import UsageError

ENGINES = ("rjieba", "jieba")


@cache
def _cutter(engine: str, hmm: bool) -> Callable[[str], list[str]]:
    if engine == "rjieba":
        import rjieba

        cut = rjieba.Jieba().cut  # own instance: words added elsewhere in the process do not leak in
        return lambda text: cut(text, hmm)
    if engine == "jieba":
        import logging

        import jieba

        jieba.setLogLevel(logging.WARNING)  # it announces on stderr that it builds its dictionary
        tokenizer = jieba.Tokenizer()
        return lambda text: tokenizer.lcut(text, HMM=hmm)
    raise UsageError(f"no segmenter {engine!r}", remedy=f"choose {' or '.join(ENGINES)}")


def segment(texts: Sequence[str], engine: str = "rjieba", *, hmm: bool = True) -> list[list[str]]:
    """The words of each text; joined they are the text again, spaces and punctuation being words of their
    own.

    `hmm` also guesses words that the dictionary lacks. Without it both engines agree word for word; with it
    they differ now and then at Latin letters and digits. Raises UsageError for an unknown engine.
    """
    cut = _cutter(engine, hmm)
    return [cut(text) for text in texts]
