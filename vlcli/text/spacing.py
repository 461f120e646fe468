"""Text out of the words that a tokenizer made of it: spaces where the script has them."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Scripts that put no space between words: Chinese, kana, bopomofo, their punctuation and full-width forms. Not Hangul.
_UNSPACED = (
    "\u2e80-\u2fdf\u3000-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\ufe30-\ufe4f\uff00-\uff9f\U00020000-\U0003ffff"
)
_BESIDE_UNSPACED = re.compile(rf"(?<=[{_UNSPACED}]) +| +(?=[{_UNSPACED}])")
_BEFORE = re.compile(r" +(?=[,.!?;:%)\]}،؛؟])")
_AFTER = re.compile(r"(?<=[(\[{]) +")
_WITHIN = re.compile(r"(?<=\w) *(['’/-]) *(?=\w)")
_NUMBER = re.compile(r"(?<=\d)([.,:]) (?=\d)")


def without_foreign_spaces(text: str) -> str:
    """The text without the spaces that stand beside a Chinese or Japanese character, where nobody writes them."""
    return _BESIDE_UNSPACED.sub("", text).strip()


def joined(words: Iterable[str]) -> str:
    """Words and signs, as BERT's rules part them, as a text: between words of other scripts there is a space, and signs
    stand where English has them. What the parting forgot, whether "3.5" had a space, is guessed."""
    text = without_foreign_spaces(" ".join(words))
    text = _AFTER.sub("", _BEFORE.sub("", text))
    return _NUMBER.sub(r"\1", _WITHIN.sub(r"\1", text))
