"""Tokenizers by name or from a local directory, behind one face: texts to ids that end with their last token.

`wordpiece-zh` is ours (vlcli/text/wordpiece.py). Everything else runs on the library `tokenizers`: CLIP's BPE
[F §4.1: lower-cased, 49,408], and whatever a directory holds (XLM-R, RoBERTa-wwm, a vocabulary of your own).
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from vlcli.errors import InputError, UsageError
from vlcli.text.wordpiece import VOCABULARY, WordPiece

NAMES = ("wordpiece-zh", "clip-bpe")
LENGTHS = {"wordpiece-zh": 32, "clip-bpe": 77}  # tokens [W §4.2; F §4.1]
OTHER_LENGTH = 77  # what CLIP's text tower reads, which AltCLIP's replaces
MERGES = "bpe_simple_vocab_16e6.txt.gz"
CLIP_SIZE = 49_408

Positions = list[list[int]]  # the places of one label in one row of ids, left to right


class TextTokenizer(Protocol):
    """`fingerprint` is a SHA-256 of what decides the ids."""

    fingerprint: str

    def encode(self, texts: Sequence[str], length: int) -> tuple[list[list[int]], int]:
        """Ids of each text, special ones included and at most `length`, and how many texts were cut."""

    def find(self, texts: Sequence[str], ids: Sequence[list[int]], labels: Sequence[str]) -> list[Positions]:
        """Where the tokens of each text's label stand in its ids."""


class _WordPiece:
    def __init__(self, wordpiece: WordPiece) -> None:
        self._wordpiece = wordpiece
        self.fingerprint = hashlib.sha256("\n".join(wordpiece.pieces).encode()).hexdigest()

    def encode(self, texts: Sequence[str], length: int) -> tuple[list[list[int]], int]:
        content, cls_id, sep_id = self._wordpiece.content, self._wordpiece.cls_id, self._wordpiece.sep_id
        room = length - 2
        rows = [content(text) for text in texts]
        return [[cls_id, *row[:room], sep_id] for row in rows], sum(len(row) > room for row in rows)

    def find(self, texts: Sequence[str], ids: Sequence[list[int]], labels: Sequence[str]) -> list[Positions]:
        return [self._wordpiece.find(row, label) for row, label in zip(ids, labels, strict=True)]


class _Pipeline:
    """A `tokenizers` pipeline, its own padding and truncation switched off."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._specials = tokenizer.num_special_tokens_to_add(False)
        self.fingerprint = hashlib.sha256(tokenizer.to_str().encode()).hexdigest()

    def _encodings(self, texts: Sequence[str], length: int | None) -> list[Any]:
        if length is None:
            return self._tokenizer.encode_batch(list(texts))
        if length <= self._specials:
            raise UsageError(f"a length of {length} has no room beside {self._specials} special tokens")
        self._tokenizer.enable_truncation(length)
        try:
            return self._tokenizer.encode_batch_fast(list(texts))
        finally:
            self._tokenizer.no_truncation()

    def encode(self, texts: Sequence[str], length: int) -> tuple[list[list[int]], int]:
        found = self._encodings(texts, length)
        return [one.ids for one in found], sum(bool(one.overflowing) for one in found)

    def find(self, texts: Sequence[str], ids: Sequence[list[int]], labels: Sequence[str]) -> list[Positions]:
        """By the letters that a token covers: a label alone is often cut otherwise than inside a text."""
        found = []
        for one, text, row, label in zip(self._encodings(texts, None), texts, ids, labels, strict=True):
            spans = list(zip(one.offsets, one.special_tokens_mask, strict=True))
            # `row` may be cut, its last token then stands for the end
            inside = [i for i in range(min(len(row), len(spans))) if not spans[i][1] and row[i] == one.ids[i]]
            positions: Positions = []
            start = text.find(label) if label else -1
            while start >= 0:
                end = start + len(label)
                whole = [i for i, (span, _) in enumerate(spans) if span[0] < end and span[1] > start]
                here = [i for i in inside if i in whole]
                if whole and here == whole:
                    positions.append(here)
                start = text.find(label, end)
            found.append(positions)
        return found


def load_tokenizer(name: str) -> TextTokenizer:
    """`wordpiece-zh`, `clip-bpe`, or a directory or file: tokenizer.json, vocab.txt, CLIP's merges, or what
    transformers reads there when it is installed.

    Raises UsageError for what is not there or not installed, InputError for what is damaged.
    """
    found = read_tokenizer(name, said="--tokenizer")
    return _WordPiece(found) if isinstance(found, WordPiece) else _Pipeline(found)


def read_tokenizer(name: str, *, said: str) -> WordPiece | Tokenizer:
    """The same, bare; `said` is what named it, for messages."""
    if name == "wordpiece-zh":
        return WordPiece.load(VOCABULARY)
    if name == "clip-bpe":
        return clip_bpe(_packaged_merges(said))
    path = Path(name)
    if not path.exists():
        known = f"{', '.join(NAMES)}, a directory or a tokenizer.json"
        raise UsageError(f"{said} {name}: no such tokenizer", remedy=f"there are {known}")
    if path.is_dir():
        return _of_directory(path)
    if path.name.endswith((".txt.gz", "merges.txt")):
        return clip_bpe(path)
    if path.suffix == ".txt":
        return WordPiece.load(path)
    return _from_file(path)


def _of_directory(path: Path) -> WordPiece | Tokenizer:
    if (path / "tokenizer.json").is_file():
        return _from_file(path / "tokenizer.json")
    if (path / MERGES).is_file():
        return clip_bpe(path / MERGES)
    if (path / "vocab.txt").is_file() and _lowers(path / "tokenizer_config.json"):
        return WordPiece.load(path)
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise UsageError(
            f"{path}: it holds no tokenizer.json", remedy="pip install transformers reads the older files"
        ) from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
    except Exception as error:  # transformers has no common class for what a directory may lack
        cause = " ".join(str(error).split())[:200]
        raise InputError(f"transformers reads no tokenizer here ({cause})", file=str(path)) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UsageError(
            f"{path}: transformers has only a slow tokenizer for it", remedy="save a tokenizer.json"
        )
    return backend


def _lowers(config: Path) -> bool:
    """Whether a vocab.txt stands for BERT's rules as ours are: lower case."""
    try:
        return bool(json.loads(config.read_text(encoding="utf-8")).get("do_lower_case", True))
    except FileNotFoundError:
        return True
    except (ValueError, AttributeError):
        raise InputError("not a JSON object", file=str(config)) from None


def _from_file(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises the bare class
        raise InputError(f"not a tokenizer ({error})", file=str(path)) from None


def _packaged_merges(said: str) -> Path:
    spec = find_spec("open_clip")
    file = Path(spec.origin).parent / MERGES if spec is not None and spec.origin else None
    if file is None or not file.is_file():
        raise UsageError(
            f"{said} clip-bpe: CLIP's merges are not installed",
            remedy=f"pip install open_clip_torch, or name the file: {MERGES}",
        )
    return file


def clip_bpe(merges: Path) -> Tokenizer:
    """CLIP's BPE from its list of merges, as transformers builds it: NFC, one space, lower case.

    OpenAI's own code also repairs texts with ftfy before, which makes full-width punctuation half-width.
    """
    try:
        raw = merges.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"not a list of merges ({error})", file=str(merges)) from None
    letters = _byte_letters()
    count = CLIP_SIZE - 2 * len(letters) - 2
    pairs = [tuple(line.split()) for line in text.split("\n")[1 : count + 1]]
    if len(pairs) < count or any(len(pair) != 2 for pair in pairs):
        raise InputError(f"not CLIP's list of {count:,} merges", file=str(merges))
    pieces = [*letters, *(f"{c}</w>" for c in letters), *(a + b for a, b in pairs)]
    start, end = "<|startoftext|>", "<|endoftext|>"
    ids = {piece: number for number, piece in enumerate([*pieces, start, end])}
    model = models.BPE(
        vocab=ids,
        merges=pairs,  # type: ignore[arg-type]
        unk_token=end,
        end_of_word_suffix="</w>",
        continuing_subword_prefix="",
        fuse_unk=False,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, ids[start]), (end, ids[end])]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _byte_letters() -> list[str]:
    """A printable letter for each byte, in CLIP's order: those that print stand for themselves, then the rest."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in shown]
    return [*map(chr, shown), *(chr(256 + i) for i in range(len(others)))]
