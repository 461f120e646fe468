"""Rules that count over the whole input, beside literal ones in plain Python; held in memory, spilled and split."""

from __future__ import annotations

import random
import re
import string
import unicodedata
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from vlcli.curation.bounds import Bound
from vlcli.curation.catalogue import BY_NAME
from vlcli.curation.fields import explode
from vlcli.curation.hashed_set import HashedSet
from vlcli.curation.measures import Words
from vlcli.curation.rare_tokens import KNOWN, Vocabulary
from vlcli.curation.rule import Rule
from vlcli.curation.sharing import Sharing
from vlcli.records.batch import BOOKKEEPING, COLUMNS, Batch

SIZES = [
    {},
    {"flush_bytes": 1, "buckets": 3},
    {"flush_bytes": 1, "bucket_bytes": 1, "buckets": 2},
]
WORDS = [
    "a",
    "Dog",
    "dog",
    "photo",
    "狗",
    "img_0",
    "caf\u00e9",
    "cafe\u0301",
    "don't",
    "big",
    "x" * 40,
    "…",
    "+",
]


def batch_of(rows: list[dict]) -> Batch:
    frame = pl.DataFrame(
        [{name: row.get(name) for name in COLUMNS} for row in rows], schema=COLUMNS
    ).with_columns(pl.lit(None, dtype).alias(name) for name, dtype in BOOKKEEPING.items())
    return Batch(frame, [{} for _ in rows], "rows.jsonl", True)


def corpus(seed: int, rows: int = 300) -> list[list[dict]]:
    """Batches of rows with none to three texts of few words, and few images."""
    chance = random.Random(seed)

    def text() -> str:
        words = chance.choices(WORDS, [2**-i for i in range(len(WORDS))], k=chance.randint(0, 5))
        return chance.choice(["", " ", "\u3000"]) + chance.choice([" ", ", ", "  "]).join(words)

    made = [
        {
            "image_id": chance.choice([None, *"abcdef"]),
            "text": chance.choice([None, [], [text()], [text(), text()], [t := text(), t, text()]]),
        }
        for _ in range(rows)
    ]
    return [made[:7], made[7:200], [], made[200:]]


def lines_of(batch: Batch) -> pl.DataFrame:
    return explode(batch.frame["text"], np.ones(len(batch), bool))


def surveyed(survey, batches):
    """What it supplies in the second pass, batch by batch."""
    with survey:
        for rows in batches:
            batch = batch_of(rows)
            survey.add(batch, lines_of(batch).filter("is_text"), np.ones(len(batch), bool))
        survey.finish()
        return [survey.look_up(batch_of(rows), lines_of(batch_of(rows))).to_list() for rows in batches]


def plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_sharing_equals_sets(sizes, seed):
    batches = corpus(seed)
    images, texts = defaultdict(set), defaultdict(set)
    for row in (row for rows in batches for row in rows):
        for text in row["text"] or []:
            if row["image_id"] is not None:
                images[plain(text)].add(row["image_id"])
                texts[row["image_id"]].add(plain(text))
    over = {text: len(of) for text, of in images.items() if len(of) > 2}
    found = surveyed(Sharing(Bound("<=", 2), by="text", **sizes), batches)
    assert found == [
        [None if t is None else over.get(plain(t)) for row in rows for t in row["text"] or [None]]
        for rows in batches
    ]
    middle = sorted(len(of) for of in texts.values())[2]
    many = {image: len(of) for image, of in texts.items() if len(of) > middle}
    assert 0 < len(many) < len(texts)
    found = surveyed(Sharing(Bound("<=", middle), by="image_id", **sizes), batches)
    assert found == [[many.get(row["image_id"]) for row in rows] for rows in batches]


def grams(text: str) -> list[str]:
    words = re.findall(rf"[^\s{re.escape(string.punctuation)}…]+", plain(text).lower())
    return words + [f"{a} {b}" for a, b in pairwise(words)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("size", [1, 7, 30, 31, 32, 33, 34, 60, 10_000])
def test_the_vocabulary_equals_a_sorted_counter(sizes, size):
    batches = corpus(size, rows=200)
    counts = Counter(g for rows in batches for row in rows for t in row["text"] or [] for g in grams(t))
    ranked = sorted(counts, key=lambda gram: (-counts[gram], gram))[:size]
    survey = Vocabulary(size, sorted_at_once=3, **sizes)
    expected = [
        [set(grams(t)) <= set(ranked) for row in rows for t in row["text"] or [""]] for rows in batches
    ]
    assert surveyed(survey, batches) == expected
    assert survey.size == len(ranked)


def test_a_set_on_disk_is_a_set():
    chance = random.Random(0)
    inside = [str(chance.random()) for _ in range(3000)] + [""]
    asked = inside[::3] + [str(chance.random()) for _ in range(1000)]
    found = HashedSet()
    assert not found.contains(pl.Series(asked)).any()
    for start in range(0, len(inside), 700):
        found.add(pl.Series(inside[start : start + 700], dtype=pl.String()))
    found.freeze()
    assert found.contains(pl.Series(asked)).tolist() == [s in set(inside) for s in asked]
    found.close()


def test_equal_first_halves_of_hashes_are_told_apart(monkeypatch):
    def weak(strings):
        return (strings.str.len_bytes() * 0 + 5).cast(pl.UInt64()).to_numpy(), strings.hash(9).to_numpy()

    monkeypatch.setattr("vlcli.curation.hashed_set._hashes", weak)
    found = HashedSet()
    found.add(pl.Series(["a", "b", "c"]))
    found.freeze()
    assert found.contains(pl.Series(["c", "d", "a", "b"])).tolist() == [True, False, True, True]
    found.close()


def rule_of(name: str, value: str) -> Rule:
    rule = BY_NAME[name].build(BY_NAME[name].parse(value, name), Words())
    assert isinstance(rule, Rule)
    return rule


def kept(rule: Rule, rows: list[dict]) -> list[bool]:
    assert rule.survey is not None
    [values] = surveyed(rule.survey(), [rows])
    dtype = pl.Boolean() if rule.columns[0] == KNOWN else pl.Int64()
    frame = pl.DataFrame({rule.columns[0]: pl.Series(values, dtype=dtype)})
    return frame.select(rule.keep.fill_null(False)).to_series().to_list()


def test_a_text_of_10_images_is_kept_and_of_11_dropped():
    rows = [{"image_id": str(i), "text": ["ten"]} for i in range(10)] * 2
    rows += [{"image_id": str(i), "text": ["eleven"]} for i in range(11)]
    assert kept(rule_of("max-images-per-text", "<=10"), rows) == [True] * 20 + [False] * 11


def test_an_image_of_1000_texts_is_kept_and_of_1001_dropped():
    rows = [{"image_id": "a", "text": [str(i)]} for i in range(1000)] * 2
    rows += [{"image_id": "b", "text": [str(i), " 0"]} for i in range(1001)]
    assert kept(rule_of("max-texts-per-image", "<=1000"), rows) == [True] * 2000 + [False] * 1001


def test_the_last_of_the_vocabulary_is_in_and_the_next_is_not():
    rows = [{"text": [t]} for t in ("b b", "a", "b a", "!", "")]  # b 3; a 2; b a, b b 1 each
    assert kept(rule_of("ngram-vocab-size", "3"), rows) == [False, True, True, True, True]
    assert kept(rule_of("ngram-vocab-size", "4"), rows) == [True] * 5
    assert kept(rule_of("ngram-vocab-size", "2"), rows) == [False, True, False, True, True]
