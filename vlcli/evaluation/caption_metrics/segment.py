"""What a word of a caption is."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vlcli.errors import UsageError

TOKENIZERS = {
    "char": "every character but spaces is a word",
    "jieba": "words as jieba cuts them, whatever spaces stand between Chinese characters",
    "words": "what stands between spaces: captions that were segmented before",
}

# A space beside anything but ASCII: somebody's segmentation, and not one that the text needs.
_BETWEEN = re.compile(r"(?<=[^\x00-\x7f])\s+|\s+(?=[^\x00-\x7f])")


def segment(texts: Sequence[str], tokenizer: str) -> list[list[str]]:
    """The words of each text; a text of nothing but spaces has none. Raises UsageError for an unknown tokenizer.

    jieba is the library of that name, since AI Challenger's own scorer cuts with it; rjieba, faster, differs now and
    then at Latin letters and digits.
    """
    if tokenizer == "char":
        return [list("".join(text.split())) for text in texts]
    if tokenizer == "words":
        return [text.split() for text in texts]
    if tokenizer == "jieba":
        from vlcli.curation import words

        plain = [_BETWEEN.sub("", text.strip()) for text in texts]
        return [[word for word in cut if not word.isspace()] for cut in words.segment(plain, "jieba")]
    raise UsageError(f"no tokenizer {tokenizer!r} of captions", remedy=f"choose of {', '.join(TOKENIZERS)}")


def parse_tokenizers(value: str) -> tuple[str, ...]:
    """`char,jieba`, each once. Raises UsageError for an unknown one, or none."""
    found = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    unknown = [name for name in found if name not in TOKENIZERS]
    if unknown or not found:
        raise UsageError(f"--tokenize {value!r} is none of {', '.join(TOKENIZERS)}")
    return found
