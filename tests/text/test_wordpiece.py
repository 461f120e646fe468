"""Ids equal transformers' BertTokenizer, old and new, and a literal reading of BERT's rules."""

from __future__ import annotations

import hashlib
import pickle
import random
import unicodedata
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from vlcli.errors import InputError, UsageError
from vlcli.text.wordpiece import NAME_TOKEN, VOCABULARY, WordPiece, pipeline

ROOT = Path(__file__).parents[2]
SHA256 = "45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c"
# Where transformers' own two tokenizers disagree, we follow the one it loads (`BertTokenizer`): Python's
# lower-casing knows the final sigma, and drops what Unicode has not assigned; the Rust tables do neither.
FINAL_SIGMA = "Café CAFÉ cafe\u0301 ﬁ ŉ ǅ İstanbul ΣΑΣ Straße"
UNASSIGNED = "\u00ad软\u00ad连\u00ad字\ue000私用\uffff\U0010ffff"
ODD = [
    FINAL_SIGMA,
    UNASSIGNED,
    "",
    " ",
    "\t\n\r ",
    "\x00",
    "a\x00b",
    "零\u200b宽\u200d字\ufeff符",
    "\u0085a\u001cb\u2028c\u2029d\u00a0e\u3000f",
    "😀👨‍👩‍👧‍👦🏳️‍🌈🇨🇳❤️",
    "𠀀𪚥㐀豈更\u2f00⺀々〇",
    "iPod nano第7代16GB，2012年9月12日发布！",
    "x" * 100,
    "x" * 101,
    "啊" * 300,
    "1" * 99 + "狐",
    "한국어 조선 각 가\u11a8",
    "日本語カタカナひらがな がか\u3099",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0651 שָׁלוֹם हिन्दी ไทย",
    "《红楼梦》——“第一回”…（上）",
    "C++/C#, f(x)=x^2 ~`|<>$€¥",
    "\u302e\u302f\U0001d165\U0001d16e音",
]


@pytest.fixture(scope="module")
def wordpiece() -> WordPiece:
    return WordPiece.load()


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """10,000 distinct real texts: names and keywords in nine languages, sliding pieces of them; odd ones."""
    frame = pl.read_parquet(ROOT / "examples/emoji/raw.parquet")
    frame = frame.select(pl.col("^name.*$"), "keywords", "keywords_en", "group_zh", "subgroup")
    found: dict[str, None] = {}
    for column in frame.iter_columns():
        values = column.explode() if column.dtype == pl.List(pl.String) else column
        found.update(dict.fromkeys(values.drop_nulls().unique(maintain_order=True)))
    whole = list(found)
    running = "，".join(whole)
    for start in range(0, len(running), 17):
        if len(found) >= 10_000:
            break
        found[running[start : start + 11 + start % 37]] = None
    assert len(found) >= 10_000
    return ODD + list(found)


def literal_words(text: str) -> list[str]:
    """BERT's basic tokenizer, rule after rule as its paper's code states them."""
    clean = ""
    for letter in text:
        category = unicodedata.category(letter)
        if letter in "\t\n\r" or category == "Zs":
            clean += " "
        elif not (category.startswith("C") or letter == "\ufffd"):
            clean += letter
    spaced = ""
    for letter in clean:
        code = ord(letter)
        chinese = (
            0x4E00 <= code <= 0x9FFF
            or 0x3400 <= code <= 0x4DBF
            or 0x20000 <= code <= 0x2A6DF
            or 0x2A700 <= code <= 0x2CEAF
            or 0xF900 <= code <= 0xFAFF
            or 0x2F800 <= code <= 0x2FA1F
        )
        spaced += f" {letter} " if chinese else letter
    lowered = "".join(c for c in unicodedata.normalize("NFD", spaced) if unicodedata.category(c) != "Mn")
    lowered = "".join(letter.lower() for letter in lowered)
    split = ""
    for letter in lowered:
        ascii_mark = letter.isascii() and letter.isprintable() and not letter.isalnum() and letter != " "
        mark = ascii_mark or unicodedata.category(letter).startswith("P")
        split += f" {letter} " if mark else letter
    return split.split()


def literal_ids(text: str, vocabulary: dict[str, int]) -> list[int]:
    ids: list[int] = []
    for word in literal_words(text):
        pieces: list[int] = []
        start = 0
        while start < len(word) and len(word) <= 100:
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in vocabulary:
                    pieces.append(vocabulary[piece])
                    start = end
                    break
            else:
                pieces = []
                break
        ids += pieces or [vocabulary["[UNK]"]]
    return ids


def unpadded(ids: np.ndarray, mask: np.ndarray) -> list[list[int]]:
    return [row[here].tolist() for row, here in zip(ids, mask, strict=True)]


def test_the_shipped_vocabulary_is_googles_and_chinese_clips() -> None:
    raw = VOCABULARY.read_bytes()
    assert hashlib.sha256(raw).hexdigest() == SHA256
    assert SHA256 in (VOCABULARY.parent / "SOURCES.md").read_text(encoding="utf-8")
    assert raw.count(b"\n") == len(set(raw.split(b"\n"))) - 1 == 21128
    import cn_clip

    assert (Path(cn_clip.__path__[0]) / "clip" / "vocab.txt").read_bytes() == raw


def test_equals_transformers_on_ten_thousand_texts(wordpiece: WordPiece, texts: list[str]) -> None:
    from transformers import BertTokenizer

    theirs = BertTokenizer(str(VOCABULARY))(texts, truncation=True, max_length=64)["input_ids"]
    assert unpadded(*wordpiece.encode(texts, length=64)) == theirs


def test_equals_transformers_python_tokenizer(wordpiece: WordPiece, texts: list[str]) -> None:
    legacy = pytest.importorskip("transformers.models.bert.tokenization_bert_legacy")
    theirs = legacy.BertTokenizerLegacy(str(VOCABULARY))
    ids = [theirs.convert_tokens_to_ids(theirs.tokenize(text)) for text in texts]
    differ = {text for text, expected in zip(texts, ids, strict=True) if wordpiece.content(text) != expected}
    assert differ == {FINAL_SIGMA, UNASSIGNED}


def test_equals_a_literal_reading_of_the_rules(wordpiece: WordPiece, texts: list[str]) -> None:
    vocabulary = {piece: number for number, piece in enumerate(_lines(VOCABULARY))}
    differ = {text for text in texts if wordpiece.content(text) != literal_ids(text, vocabulary)}
    assert differ == {UNASSIGNED}


def test_equals_the_rust_pipeline_on_every_character(wordpiece: WordPiece) -> None:
    """Every code point of the first planes, between letters: the table of letters forgets no neighbour."""
    reference = pipeline({piece: number for number, piece in enumerate(wordpiece.pieces)})
    codes = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    texts = ["".join(f"a{letter}b " for letter in codes[at : at + 256]) for at in range(0, len(codes), 256)]
    theirs = reference.encode_batch(texts, add_special_tokens=False)
    assert [wordpiece.content(text) for text in texts] == [encoding.ids for encoding in theirs]


def test_equals_the_rust_pipeline_on_random_mixtures(wordpiece: WordPiece) -> None:
    reference = pipeline({piece: number for number, piece in enumerate(wordpiece.pieces)})
    draw = random.Random(0)
    alphabet = [chr(code) for code in range(0x3400)] + list("中文狐狸aAzé\u0301\u0345İΣσß각。#" * 600)
    texts = ["".join(draw.choices(alphabet, k=draw.randint(0, 40))) for _ in range(5000)]
    theirs = reference.encode_batch(texts, add_special_tokens=False)
    assert [wordpiece.content(text) for text in texts] == [encoding.ids for encoding in theirs]


def test_special_tokens_typed_in_a_caption_stay_text(wordpiece: WordPiece) -> None:
    text = "一[PAD]只[CLS]狐[SEP]狸[MASK]跑[UNK]"
    ids, mask = wordpiece.encode([text], length=64)
    assert mask.all()
    special = [wordpiece.pad_id, wordpiece.cls_id, wordpiece.sep_id, wordpiece.mask_id, wordpiece.unk_id]
    assert np.isin(ids[0], special).tolist() == [True] + [False] * (ids.shape[1] - 2) + [True]
    # The difference from transformers is exactly this: it reads all five as special.
    from transformers import BertTokenizer

    theirs = BertTokenizer(str(VOCABULARY))(text)["input_ids"]
    assert [number for number in theirs if number in special] == [101, 0, 101, 102, 103, 100, 102]


def test_the_name_token_is_one_token_in_the_slot_of_unused1(wordpiece: WordPiece) -> None:
    assert wordpiece.vocab_size == 21128
    assert wordpiece.name_id == 1 == wordpiece.pieces.index(NAME_TOKEN)
    assert [f"U+{ord(letter):04X}" for letter in NAME_TOKEN] == ["U+3008", "U+4EBA", "U+540D", "U+3009"]
    ids, _ = wordpiece.encode([f"导演{NAME_TOKEN}与a{NAME_TOKEN}b{NAME_TOKEN}{NAME_TOKEN}"])
    assert wordpiece.tokens(ids[0]) == (
        ["[CLS]", "导", "演", NAME_TOKEN, "与", "a", NAME_TOKEN, "b", NAME_TOKEN, NAME_TOKEN, "[SEP]"]
    )
    assert wordpiece.name_id not in wordpiece.encode(["〈人 名〉人名<人名>[unused1]"])[0]
    assert len(wordpiece.content(NAME_TOKEN * 5000)) == 5000


def test_padding_truncation_and_shapes(wordpiece: WordPiece) -> None:
    ids, mask = wordpiece.encode(["狐狸", "", "一只红色的狐狸在雪地上奔跑"], length=8)
    assert ids.shape == mask.shape == (3, 8)
    assert (ids.dtype, mask.dtype) == (np.int64, np.bool_)
    assert mask.sum(1).tolist() == [4, 2, 8]
    assert ids[:, 0].tolist() == [wordpiece.cls_id] * 3
    assert ids[np.arange(3), mask.sum(1) - 1].tolist() == [wordpiece.sep_id] * 3
    assert (ids[~mask] == wordpiece.pad_id).all()
    assert (ids[mask] != wordpiece.pad_id).all()
    assert wordpiece.encode(["狐"], length=2)[0].tolist() == [[101, 102]]
    assert wordpiece.encode([])[0].shape == (0, 0)
    with pytest.raises(UsageError, match="no room"):
        wordpiece.encode(["狐"], length=1)


def test_find_gives_every_place(wordpiece: WordPiece) -> None:
    ids, _ = wordpiece.encode(["狐狸和白狐狸，iPod与狐"])
    assert wordpiece.find(ids[0], "狐狸") == [[1, 2], [5, 6]]
    assert wordpiece.find(ids[0], "ipod") == [[8]]
    assert wordpiece.find(ids[0], "狐") == [[1], [5], [10]]
    assert wordpiece.find(ids[0], "大熊猫") == []
    assert wordpiece.find(ids[0], "") == []
    assert wordpiece.find(wordpiece.content("哈哈哈"), "哈哈") == [[0, 1], [1, 2]]


def test_save_and_load_round_trip_here_and_in_transformers(wordpiece: WordPiece, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertTokenizer

    wordpiece.save(tmp_path)
    again = WordPiece.load(tmp_path)
    texts = [f"照片里的{NAME_TOKEN}在跑", "一只狐狸iPod Café", *ODD]
    assert again.pieces == wordpiece.pieces
    ours = unpadded(*wordpiece.encode(texts))
    assert unpadded(*again.encode(texts)) == ours
    for opener in (AutoTokenizer, BertTokenizer):
        theirs = opener.from_pretrained(tmp_path)
        assert len(theirs) == 21128
        assert theirs(texts, truncation=True, max_length=32)["input_ids"] == ours
        assert (theirs.pad_token_id, theirs.cls_token_id, theirs.sep_token_id) == (0, 101, 102)
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert loaded.encode("[PAD]狐[SEP]").ids == unpadded(*wordpiece.encode(["[PAD]狐[SEP]"]))[0]
    before, after = _lines(VOCABULARY), _lines(tmp_path / "vocab.txt")
    assert [number for number, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]] == [
        1
    ]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")


def test_pickles_for_spawned_workers(wordpiece: WordPiece) -> None:
    again = pickle.loads(pickle.dumps(wordpiece))
    assert again.content("一只狐狸unseenword") == wordpiece.content("一只狐狸unseenword")


def test_bad_vocabularies_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such vocabulary"):
        WordPiece.load(tmp_path)
    file = tmp_path / "vocab.txt"
    file.write_text("[PAD]\n[UNK]\n狐\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"vocab\.txt: no \[CLS\], \[SEP\], \[MASK\]"):
        WordPiece.load(tmp_path)
    file.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n狐\n狐\n", encoding="utf-8")
    with pytest.raises(InputError, match="twice"):
        WordPiece.load(tmp_path)
    file.write_bytes(b"[PAD]\n\xff\n")
    with pytest.raises(InputError, match="not UTF-8"):
        WordPiece.load(tmp_path)


def test_a_foreign_vocabulary_without_the_slot_has_no_name_token() -> None:
    small = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "人", "名", "〈", "〉"])
    assert small.name_id is None
    assert small.tokens(small.content(NAME_TOKEN)) == ["〈", "人", "名", "〉"]
