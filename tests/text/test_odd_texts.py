"""10,000 odd strings: ids are transformers', and each difference from other tokenizers is one of those listed."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter

import pytest

from vlcli.text.wordpiece import NAME_TOKEN, VOCABULARY, WordPiece, pipeline

SPELLED = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", NAME_TOKEN)


def between(first: int, last: int) -> list[str]:
    return [chr(code) for code in range(first, last + 1)]


POOLS = [
    list("abcXYZ the Fox"),
    list("0123456789٣५"),
    between(0x4E00, 0x9FFF),
    between(0x3400, 0x4DBF),
    between(0x20000, 0x2A6DF),  # extension B
    between(0x2A700, 0x323AF),  # C to H
    between(0x2B810, 0x2B930),  # where D ends and E begins
    between(0xF900, 0xFAFF) + between(0x2F800, 0x2FA1F) + between(0x2E80, 0x2FDF),
    between(0x0300, 0x036F),  # marks with nothing to stand on
    ["👨‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇨🇳", "1️⃣", "❤️", "🦊"],
    [*between(0x00, 0x1F), *between(0x7F, 0x9F), *["\x00"] * 30],
    list("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u202a\u202e\u2066\u2069"),
    list("שלום עולם") + between(0x0627, 0x064A) + between(0x064B, 0x065F),  # right to left
    [*between(0xFF01, 0xFF5E), "\u3000"],  # full width
    list(" \t\n\r\x0b\x0c\x1c\x85\u00a0\u1680\u2003\u2028\u2029\u202f\u205f\u3000"),
    ["é", "e\u0301", "ñ", "n\u0303", "ệ", "e\u0323\u0302", "Å", "\u212b", "A\u030a"],
    [*"İIıiŞşĞğ", "i\u0307"],
    [*"ΣσςΟΔ ", "ΟΔΟΣ ", "ΑΣ."],
    between(0x3041, 0x30FF),
    between(0xAC00, 0xAC3F) + between(0x1100, 0x11FF),
    between(0x0900, 0x097F) + between(0x0E01, 0x0E5B),
    list("。，！？《》「」…—·、〈〉"),
    list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
    [*SPELLED, "[cls]", "[unused1]", "##ing", "人名"],
    [*between(0xE000, 0xE00F), "\ufffd", "\uffff", "\U0010ffff"],  # private, replacement, no characters
    list("ﬁﬂŉǅßſ\u212a"),  # lower-casing and decomposing them gives other letters
]


def odd(count: int, seed: int = 0) -> list[str]:
    """Mixtures of up to four kinds; every tenth ends in one letter about a hundred or two hundred times."""
    draw = random.Random(seed)
    texts = []
    for _ in range(count):
        kinds = draw.sample(POOLS, draw.randint(1, 4))
        text = "".join(draw.choice(draw.choice(kinds)) for _ in range(draw.randint(1, 24)))
        tail = draw.choice(draw.choice(kinds)) * draw.choice([99, 100, 101, 199, 200, 201])
        texts.append(text + tail if draw.random() < 0.1 else text)
    return texts


TEXTS = odd(10_000)


@pytest.fixture(scope="module")
def wordpiece() -> WordPiece:
    return WordPiece.load()


@pytest.fixture(scope="module")
def ours(wordpiece: WordPiece) -> list[list[int]]:
    return [wordpiece.content(text) for text in TEXTS]


def test_equals_transformers_but_for_typed_special_tokens(wordpiece, ours) -> None:
    from transformers import BertTokenizer

    theirs = BertTokenizer(str(VOCABULARY))(TEXTS, add_special_tokens=False)["input_ids"]
    differ = [t for t, mine, other in zip(TEXTS, ours, theirs, strict=True) if mine != other]
    assert all(any(spelled in text for spelled in SPELLED) for text in differ)
    assert len(differ) > 100
    # With these as we read them, all are equal.
    reference = pipeline({piece: number for number, piece in enumerate(wordpiece.pieces)})
    assert ours == [e.ids for e in reference.encode_batch(TEXTS, add_special_tokens=False)]


# Why another tokenizer may differ from ours. Which is right is said in brackets.
#   typed       specials typed in a text are text to us (ours: a caption cannot end its own sentence)
#   unassigned  Python drops what has no or a private meaning, the Rust tables keep it (Python: BERT's rule is "every
#               C* category"; ours follows what transformers loads, and a text made for it is the same text here)
#   sigma       Python lowers a final Σ to ς, Rust every Σ to σ (Python's is Greek; the same remark)
#   edge of E   U+2B820 … U+2B91F are Chinese characters to Python and plain letters to Rust (Python: BERT's table
#               has 0x2B820, Rust's 0x2B920; no piece of the vocabulary holds one, but the neighbours join their word)
#   long        a word of 101 to 200 letters is [UNK] to us and to BERT's own default of transformers; cn-clip and
#               Google's first code stop at 200
def reasons(text: str) -> set[str]:
    found = {"typed"} if any(spelled in text for spelled in SPELLED) else set()
    for letter in text:
        if unicodedata.category(letter) in ("Cn", "Co"):
            found.add("unassigned")
        if letter == "Σ":
            found.add("sigma")
        if 0x2B820 <= ord(letter) < 0x2B920:
            found.add("edge of E")
    if any(len(word) > 100 for word in unicodedata.normalize("NFD", text).split()):
        found.add("long")
    return found


def clip_of_china():
    import cn_clip.clip

    return cn_clip.clip._tokenizer


def legacy():
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

    return BertTokenizerLegacy(str(VOCABULARY))


@pytest.mark.parametrize(
    ("make", "known"),
    [
        (legacy, {"typed", "unassigned", "sigma", "edge of E"}),
        (clip_of_china, {"typed", "unassigned", "sigma", "edge of E", "long"}),
    ],
)
def test_every_difference_from_the_python_tokenizers_has_one_of_the_known_reasons(make, known, ours) -> None:
    theirs = make()
    seen: Counter[str] = Counter()
    for text, mine in zip(TEXTS, ours, strict=True):
        if mine != theirs.convert_tokens_to_ids(theirs.tokenize(text)):
            why = reasons(text) & known
            assert why, ascii(text)
            if len(why) == 1:
                seen.update(why)
    assert set(seen) == known, "a reason that never is one has no place in the list"


def test_a_lone_surrogate_is_dropped_where_transformers_breaks(wordpiece) -> None:
    from transformers import BertTokenizer

    for lone in ("\ud83d", "\udc00", "\udfff"):
        assert wordpiece.content(f"狐{lone}狸 f{lone}ox") == wordpiece.content("狐狸 fox")
        with pytest.raises(TypeError):
            BertTokenizer(str(VOCABULARY))(f"狐{lone}狸")
    assert wordpiece.encode(["\ud83d"])[0].tolist() == [[wordpiece.cls_id, wordpiece.sep_id]]


def test_composed_and_decomposed_accents_are_one_text(wordpiece) -> None:
    for text in ("Café", "ệ", "Ångström", "ñandú", "がぎ"):
        assert wordpiece.content(unicodedata.normalize("NFC", text)) == wordpiece.content(
            unicodedata.normalize("NFD", text)
        )
    assert wordpiece.content("İSTANBUL Istanbul") == wordpiece.content("istanbul istanbul")


@pytest.mark.parametrize("length", [2, 3, 8, 32, 77])
def test_a_cut_keeps_the_beginning_and_the_separator(wordpiece, ours, length) -> None:
    from transformers import BertTokenizer

    plain = [i for i, text in enumerate(TEXTS) if not any(s in text for s in SPELLED)][:2000]
    ids, mask = wordpiece.encode([TEXTS[i] for i in plain], length)
    theirs = BertTokenizer(str(VOCABULARY))([TEXTS[i] for i in plain], truncation=True, max_length=length)
    for row, here, i, other in zip(ids, mask, plain, theirs["input_ids"], strict=True):
        kept = row[here].tolist()
        assert kept == [wordpiece.cls_id, *ours[i][: length - 2], wordpiece.sep_id] == other
        assert not here[len(kept) :].any()
        assert (row[len(kept) :] == wordpiece.pad_id).all()


def test_a_word_between_chinese_letters_is_found_where_it_was_put(wordpiece, ours) -> None:
    for text, mine in zip(TEXTS[:3000], ours, strict=False):
        ids = wordpiece.content(f"一张{text}的照片")
        places = wordpiece.find(ids, text)
        if not mine:
            assert places == []
            continue
        assert list(range(2, 2 + len(mine))) in places, ascii(text)
        assert all([ids[place] for place in found] == mine for found in places)
        size = len(mine)
        assert len(places) == sum(ids[at : at + size] == mine for at in range(len(ids)))
