"""The tokenizer of a model: texts to padded ids, and what a checkpoint keeps of it.

A vocabulary of BERT's rules is ours (wordpiece.py); all else is a pipeline of the library `tokenizers`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from vlcli.errors import UsageError
from vlcli.text.spacing import without_foreign_spaces
from vlcli.text.tokenizers import read_tokenizer
from vlcli.text.wordpiece import WordPiece

FILE = "tokenizer.json"
BESIDE_WEIGHTS = "init"


class ModelTokenizer(Protocol):
    """What a model asks. cls_id and sep_id begin and end a text; −1 where a tokenizer has no such token. unwritten_ids
    are never in a text that a model writes: they stand for none."""

    pad_id: int
    cls_id: int
    sep_id: int
    special_ids: frozenset[int]
    unwritten_ids: frozenset[int]

    @property
    def vocab_size(self) -> int: ...
    def encode(self, texts: Sequence[str], length: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]: ...
    def content(self, text: str) -> list[int]: ...
    def tokens(self, ids: Iterable[int]) -> list[str]: ...
    def text(self, ids: Iterable[int]) -> str: ...
    def find(self, ids: Sequence[int], part: str) -> list[list[int]]: ...
    def save(self, path: str | Path) -> None: ...


class Pipeline:
    """A `tokenizers` pipeline: CLIP's BPE, XLM-R's SentencePiece, anything with a tokenizer.json."""

    def __init__(self, tokenizer: Tokenizer, *, padding_id: int) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._specials = tokenizer.num_special_tokens_to_add(False)
        empty = tokenizer.encode("")
        self.pad_id = padding_id
        ids = empty.ids
        # with one special token, as T5 has, it is the end
        self.cls_id = ids[0] if len(ids) > 1 else -1
        self.sep_id = ids[-1] if ids else -1
        self.special_ids = frozenset((padding_id, *ids))
        added = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        unknown = getattr(tokenizer.model, "unk_token", None)
        if unknown is not None and (number := tokenizer.token_to_id(unknown)) is not None:
            added.add(number)
        self.unwritten_ids = frozenset({*added, *ids[:-1]} - {self.sep_id})

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, texts: Sequence[str], length: int = 77) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids (B, n) and mask (B, n), true on tokens; padded to the longest, n ≤ `length`. A longer text is cut and
        keeps its last special token."""
        if length <= self._specials:
            raise UsageError(f"a text length of {length} has no room beside {self._specials} special tokens")
        if not texts:
            return np.empty((0, 0), dtype=np.int64), np.empty((0, 0), dtype=np.bool_)
        self._tokenizer.enable_truncation(length)
        try:
            rows = [one.ids for one in self._tokenizer.encode_batch_fast(list(texts))]
        finally:
            self._tokenizer.no_truncation()
        lengths = np.fromiter(map(len, rows), np.int64, count=len(rows))
        mask = np.arange(max(1, lengths.max())) < lengths[:, None]
        ids = np.full(mask.shape, self.pad_id, dtype=np.int64)
        for row, found in zip(ids, rows, strict=True):
            row[: len(found)] = found
        return ids, mask

    def content(self, text: str) -> list[int]:
        """The ids of one text, uncut and without special tokens."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The pieces, as the vocabulary writes them."""
        return [self._tokenizer.id_to_token(int(number)) or "" for number in ids]

    def text(self, ids: Iterable[int]) -> str:
        """What the ids spell, special tokens left out."""
        return without_foreign_spaces(self._tokenizer.decode([int(number) for number in ids]))

    def find(self, ids: Sequence[int], part: str) -> list[list[int]]:
        """All places where tokens in a row spell `part`, as positions in `ids`, left to right.

        By what they spell, because the tokens of a word alone are often not those inside a text. The fewest tokens
        that spell it, none of them twice.
        """
        wanted = self._spelled(self.content(part))
        numbers = [int(number) for number in ids]
        places: list[list[int]] = []
        start = 0
        while wanted and start < len(numbers):
            for end in range(start + 1, len(numbers) + 1):
                if numbers[start] in self.special_ids or numbers[end - 1] in self.special_ids:
                    break
                spelled = self._spelled(numbers[start:end])
                if spelled == wanted:
                    while (
                        self._spelled(numbers[start + 1 : end]) == wanted
                    ):  # a token that spells nothing: "▁"
                        start += 1
                    places.append(list(range(start, end)))
                    start = end - 1
                    break
                if not wanted.startswith(spelled) and "\ufffd" not in spelled:
                    break
            start += 1
        return places

    def _spelled(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids)).strip()

    def save(self, path: str | Path) -> None:
        """Write tokenizer.json and a tokenizer_config.json that transformers opens too."""
        directory = Path(path)
        directory.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(directory / FILE))
        # CLIP pads with 0, which is "!": named a padding token, it would be one in every text too
        is_piece = self.pad_id not in self._tokenizer.get_added_tokens_decoder()
        names = {"cls_token": self.cls_id, "sep_token": self.sep_id, "bos_token": self.cls_id}
        names |= {"eos_token": self.sep_id, "pad_token": self.sep_id if is_piece else self.pad_id}
        config = {"tokenizer_class": "PreTrainedTokenizerFast"} | {
            name: self._tokenizer.id_to_token(number) for name, number in names.items() if number >= 0
        }
        text = json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True)
        (directory / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8", newline="\n")


def open_tokenizer(name: str, *, padding_id: int = 0) -> ModelTokenizer:
    """What `text.tokenizer` names: "wordpiece-zh", "clip-bpe", a directory or a file.

    Raises UsageError for what is not there or not installed, InputError for what is damaged.
    """
    if name == BESIDE_WEIGHTS:
        raise UsageError(
            'text.tokenizer = "init": the text tower starts from no directory with a tokenizer',
            remedy="pass --init text=DIR, or --set model.text.tokenizer=DIR",
        )
    if _has_berts_rules(Path(name)):
        return WordPiece.load(name)
    found = read_tokenizer(name, said="text.tokenizer")
    return found if isinstance(found, WordPiece) else Pipeline(found, padding_id=padding_id)


def _has_berts_rules(path: Path) -> bool:
    """Whether a directory holds a WordPiece vocabulary as ours: then no text can spell a special token."""
    if not (path / "vocab.txt").is_file() or not (path / FILE).is_file():
        return False
    try:
        pipeline = json.loads((path / FILE).read_text(encoding="utf-8"))
        rules = pipeline["normalizer"]
        wanted = {
            "type": "BertNormalizer",
            "lowercase": True,
            "handle_chinese_chars": True,
            "clean_text": True,
        }
        plain = all(rules.get(key) == value for key, value in wanted.items())
        return (
            plain and rules.get("strip_accents") in (None, True) and pipeline["model"]["type"] == "WordPiece"
        )
    except (ValueError, LookupError, AttributeError, TypeError):
        return False


def saved_tokenizer(place: Path, *, padding_id: int) -> ModelTokenizer:
    """The tokenizer that a checkpoint carries: vocab.txt of BERT's rules, else tokenizer.json."""
    if not (place / "vocab.txt").is_file() and (place / FILE).is_file():
        return open_tokenizer(str(place / FILE), padding_id=padding_id)
    return WordPiece.load(place)


def refuse_foreign(tokenizer: ModelTokenizer, vocabulary: int) -> None:
    """UsageError unless every id of the tokenizer has its row in an embedding table of `vocabulary` rows."""
    if tokenizer.vocab_size > vocabulary:
        raise UsageError(f"the tokenizer has {tokenizer.vocab_size} tokens, text.vocabulary {vocabulary}")
