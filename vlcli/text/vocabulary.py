"""Vocabularies learnt from texts: WordPiece [A §5: 100k from the training set; §8: 250k] and byte-level BPE.

The same texts in the same order give the same files. The library's WordPiece trainer alone does not: it numbers
the pieces `##x` in the order of a hash table, and breaks ties between merges by these numbers. Here every letter has
its number before it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from vlcli.errors import InputError, UsageError
from vlcli.text.wordpiece import NAME_TOKEN, SPECIALS, WordPiece

KINDS = ("wordpiece", "bpe")
Texts = Callable[[], Iterable[str]]  # gives the texts anew each time it is called


def learn(kind: str, texts: Texts, size: int, directory: Path) -> int:
    """Learns a vocabulary of at most `size` pieces into `directory`; returns how many it has.

    The name token 〈人名〉 is one of them, and its letters in the texts teach nothing. A merge must have been seen
    twice. Raises UsageError when `size` does not hold the letters, InputError without texts.
    """
    return _wordpiece(texts, size, directory) if kind == "wordpiece" else _bpe(texts, size, directory)


def _wordpiece(texts: Texts, size: int, directory: Path) -> int:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    seen: set[str] = set()
    for text in texts():
        seen.update(text)
    seen.update(NAME_TOKEN)
    letters = sorted({c for letter in seen for c in _plain(tokenizer, letter)})
    inner = [f"##{c}" for c in letters if len(_words(tokenizer, f"a{c}a")) == 1]
    first = [*SPECIALS, NAME_TOKEN, *letters, *inner]
    if len(letters) <= len(set(NAME_TOKEN)):
        raise InputError("no text to learn from")
    if len(first) > size:
        raise UsageError(f"--vocab-size {size}: the letters of the texts alone take {len(first):,}")
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=2, special_tokens=first, show_progress=False
    )
    tokenizer.train_from_iterator(_spaced(texts()), trainer)
    ids = tokenizer.get_vocab(with_added_tokens=True)
    pieces = WordPiece(sorted(ids, key=ids.__getitem__))
    pieces.save(directory)
    return pieces.vocab_size


def _plain(tokenizer: Tokenizer, letter: str) -> str:
    if "\ud800" <= letter <= "\udfff":
        return ""
    return "".join(tokenizer.normalizer.normalize_str(letter).split())


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    normal = tokenizer.normalizer.normalize_str(text)
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]


def _bpe(texts: Texts, size: int, directory: Path) -> int:
    start, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    first = [start, end, NAME_TOKEN]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    if len(first) + len(letters) > size:
        raise UsageError(f"--vocab-size {size}: the bytes alone take {len(first) + len(letters)}")
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, special_tokens=first, initial_alphabet=letters, show_progress=False
    )
    count = 0

    def counted() -> Iterator[str]:
        nonlocal count
        for text in _spaced(texts()):
            count += 1
            yield text

    tokenizer.train_from_iterator(counted(), trainer)
    if not count:
        raise InputError("no text to learn from")
    ids = tokenizer.get_vocab(with_added_tokens=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(piece, ids[piece]) for piece in (start, end)]
    )
    tokenizer.add_tokens([AddedToken(NAME_TOKEN, normalized=False)])
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    lines = "".join(f"{piece}\n" for piece in sorted(ids, key=ids.__getitem__))
    (directory / "vocab.txt").write_text(lines, encoding="utf-8", newline="\n")
    return len(ids)


def _spaced(texts: Iterable[str]) -> Iterator[str]:
    return (text.replace(NAME_TOKEN, " ") for text in texts)
