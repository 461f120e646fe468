"""WordPiece over the 21,128 pieces of Chinese BERT, the tokenizer of Wukong, R2D2 and Chinese-CLIP [W §4.2].

The rules are BERT's: control characters removed, spaces round every Chinese character, lower case, accents
stripped, punctuation split off, then greedy longest match within a word of at most 100 letters. Ids equal
those of transformers' `BertTokenizer` but for two deliberate differences:

- `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` and `[MASK]` typed inside a caption are ordinary text here (`[`, `cls`,
  `]`). transformers maps all five to the special ids and Wukong's release maps three of them; then id 0 or a
  second `[SEP]` can stand in the middle of a text, and pooling "at the last non-zero token" or "at `[SEP]`"
  reads the wrong place.
- `〈人名〉`, which stands for a masked person name, is one token. It takes the slot of `[unused1]` (spec D6),
  so that the vocabulary keeps its size.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from vlcli.errors import InputError, UsageError
from vlcli.text.spacing import joined

VOCABULARY = Path(__file__).parent / "data" / "bert-base-chinese-vocab.txt"
NAME_TOKEN = "〈人名〉"  # U+3008 U+4EBA U+540D U+3009
NAME_SLOT = "[unused1]"
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class WordPiece:
    """Texts to ids and back. `pieces` is the vocabulary in the order of its ids."""

    def __init__(self, pieces: Sequence[str], *, source: str = "vocabulary") -> None:
        ids = {piece: number for number, piece in enumerate(pieces)}
        if len(ids) != len(pieces):
            twice = next(piece for number, piece in enumerate(pieces) if ids[piece] != number)
            raise InputError(f"the piece {twice!r} stands twice in the vocabulary", file=source)
        missing = [piece for piece in SPECIALS if piece not in ids]
        if missing:
            raise InputError(f"no {', '.join(missing)} in the vocabulary", file=source)
        if NAME_TOKEN not in ids and NAME_SLOT in ids:
            slot = ids.pop(NAME_SLOT)
            ids[NAME_TOKEN] = slot
        self.pieces: tuple[str, ...] = tuple(sorted(ids, key=ids.__getitem__))
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids[piece] for piece in SPECIALS)
        self.special_ids = frozenset((self.pad_id, self.cls_id, self.sep_id))
        self.unwritten_ids = frozenset((self.pad_id, self.unk_id, self.cls_id, self.mask_id))
        # None only with a foreign vocabulary that has neither the token nor the slot.
        self.name_id: int | None = ids.get(NAME_TOKEN)
        self._letters = _Letters()
        self._word_ids = _WordIds(_model(ids))

    @classmethod
    def load(cls, path: str | Path | None = None) -> WordPiece:
        """The shipped vocabulary, that of a checkpoint directory (`vocab.txt`), or a vocabulary file."""
        file = VOCABULARY if path is None else Path(path)
        if file.is_dir():
            file = file / "vocab.txt"
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UsageError(
                f"{file}: no such vocabulary", remedy="a checkpoint carries its vocab.txt"
            ) from None
        except UnicodeDecodeError as error:
            raise InputError(f"not UTF-8 ({error.reason} at byte {error.start})", file=str(file)) from None
        # Not splitlines(): pieces may hold characters that it takes for line ends.
        pieces = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
        return cls(pieces, source=str(file))

    def save(self, path: str | Path) -> None:
        """Write `vocab.txt`, `tokenizer.json`, `tokenizer_config.json`, which transformers opens too."""
        directory = Path(path)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "vocab.txt").write_text("\n".join(self.pieces) + "\n", encoding="utf-8", newline="\n")
        pipeline({piece: number for number, piece in enumerate(self.pieces)}).save(
            str(directory / "tokenizer.json")
        )
        config = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": True,
            "strip_accents": True,
            "tokenize_chinese_chars": True,
            **{f"{piece[1:-1].lower()}_token": piece for piece in SPECIALS},
        }
        text = json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True)
        (directory / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8", newline="\n")

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def encode(self, texts: Sequence[str], length: int = 32) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids (B, n) and mask (B, n), true on `[CLS]` … `[SEP]`; padded to the longest, n ≤ `length`.

        A longer text is cut and keeps its `[SEP]` [W §4.2: context 32].
        """
        if length < 2:
            raise UsageError(f"a text length of {length} has no room for [CLS] and [SEP]")
        if not texts:
            return np.empty((0, 0), dtype=np.int64), np.empty((0, 0), dtype=np.bool_)
        room = length - 2
        rows = [[self.cls_id, *self.content(text)[:room], self.sep_id] for text in texts]
        lengths = np.fromiter(map(len, rows), np.int64, count=len(rows))
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, self.pad_id, dtype=np.int64)
        ids[mask] = np.fromiter(chain.from_iterable(rows), np.int64, count=int(lengths.sum()))
        return ids, mask

    def content(self, text: str) -> list[int]:
        """The ids of one text, uncut and without `[CLS]` and `[SEP]`."""
        if self.name_id is None or NAME_TOKEN not in text:
            return self._words(text)
        ids: list[int] = []
        for number, stretch in enumerate(text.split(NAME_TOKEN)):
            if number:
                ids.append(self.name_id)
            ids.extend(self._words(stretch))
        return ids

    def _words(self, text: str) -> list[int]:
        word_ids = self._word_ids
        return [number for word in text.translate(self._letters).split() for number in word_ids[word]]

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The pieces, `##` kept."""
        return [self.pieces[int(number)] for number in ids]

    def text(self, ids: Iterable[int]) -> str:
        """What the ids spell, special tokens left out."""
        words: list[str] = []
        for piece in self.tokens(number for number in ids if int(number) not in self.special_ids):
            if piece.startswith("##") and len(piece) > 2 and words:
                words[-1] += piece[2:]
            else:
                words.append(piece)
        return joined(words)

    def find(self, ids: Sequence[int], part: str) -> list[list[int]]:
        """All places where the tokens of `part` stand in a row, as positions in `ids`, left to right."""
        wanted = self.content(part)
        here = [int(number) for number in ids]
        size = len(wanted)
        if not size:
            return []
        return [
            list(range(start, start + size))
            for start in range(len(here) - size + 1)
            if here[start : start + size] == wanted
        ]


class _Letters(dict[int, str]):
    """Code point → what BERT's normaliser and pre-tokeniser make of it, asked once per code point.

    Every rule of theirs looks at one character at a time, so `str.translate` with this table does in one pass
    what they do in five: "" for controls and accents, " 狐 " for Chinese and punctuation, lower case without
    accents for the rest.
    """

    def __init__(self) -> None:
        super().__init__()
        self._normalizer = normalizers.BertNormalizer(**_NORMALIZER)
        self._splitter = pre_tokenizers.BertPreTokenizer()

    def __missing__(self, code: int) -> str:
        letter = ""
        if not 0xD800 <= code < 0xE000:  # a lone surrogate is no character: nothing to look up
            letter = self._normalizer.normalize_str(chr(code))
        # Between two letters, so that a lone mark, a space and a break keep what they do to their neighbours.
        words = [word for word, _ in self._splitter.pre_tokenize_str(f"a{letter}a")]
        self[code] = spaced = " ".join(words)[1:-1]
        return spaced


class _WordIds(dict[str, tuple[int, ...]]):
    """Word → ids of its pieces by greedy longest match, asked once per word; forgets all beyond `limit`."""

    def __init__(self, model: models.WordPiece, limit: int = 200_000) -> None:
        super().__init__()
        self._model = model
        self._limit = limit

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(token.id for token in self._model.tokenize(word))
        if len(self) >= self._limit:
            self.clear()
        if len(word) <= 100:
            self[word] = ids
        return ids


_NORMALIZER = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": True, "lowercase": True}


def _model(ids: dict[str, int]) -> models.WordPiece:
    return models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100)


def pipeline(ids: dict[str, int]) -> Tokenizer:
    """The same rules as a `tokenizers` pipeline, for `tokenizer.json`; no text can spell a special token."""
    tokenizer = Tokenizer(_model(ids))
    tokenizer.normalizer = normalizers.BertNormalizer(**_NORMALIZER)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(piece, ids[piece]) for piece in ("[CLS]", "[SEP]")]
    )
    if NAME_TOKEN in ids:
        tokenizer.add_tokens([AddedToken(NAME_TOKEN, normalized=False)])
    return tokenizer
