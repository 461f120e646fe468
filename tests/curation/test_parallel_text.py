"""Parallel text: what is read as a pair, what is bad, and mixtures against a literal choice."""

import hashlib
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import orjson
import polars as pl
import pytest

from vlcli.curation.parallel_mixture import ParallelMixture, write_mixture
from vlcli.curation.parallel_text import Pair, ParallelText, _Keys
from vlcli.errors import InputError, UsageError
from vlcli.records.bad import BadRows
from vlcli.records.reader import read


def jsonl(path, rows):
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return str(path)


def pairs_of(path, languages=("en", "zh", "fr"), **options):
    text = ParallelText(languages, **options)
    return [pair for pair, *_ in text.pairs(read([path]))], text


def test_forms_of_rows(tmp_path):
    """A table, filter's columns, pairs with their language; the source is the column or the file's name."""
    file = jsonl(
        tmp_path / "mixed.jsonl",
        [
            {"en": "a fox", "zh": "狐狸", "fr": "un renard", "source": "opus"},
            {"text": " a dog ", "text_zh": ["狗"], "text_fr": ""},
            {"en": "a cat", "text": "猫", "lang": "zh"},
            {"text": "a bird", "lang": "en"},
        ],
    )
    found, text = pairs_of(file)
    assert found == [
        Pair("a fox", "a fox", "en", "opus"),
        Pair("a fox", "狐狸", "zh", "opus"),
        Pair("a fox", "un renard", "fr", "opus"),
        Pair("a dog", "a dog", "en", "mixed"),
        Pair("a dog", "狗", "zh", "mixed"),
        Pair("a cat", "a cat", "en", "mixed"),
        Pair("a cat", "猫", "zh", "mixed"),
        Pair("a bird", "a bird", "en", "mixed"),
    ]
    assert text.empty == Counter(fr=1)
    without, _ = pairs_of(file, identity=False)
    assert without == [pair for pair in found if pair.lang != "en"]


def test_a_pair_counts_once(tmp_path):
    row = {"en": "a fox", "zh": "狐狸", "fr": "renard"}
    other = {"en": "a fox", "zh": "狐", "fr": "renard"}
    found, text = pairs_of(jsonl(tmp_path / "twice.jsonl", [row, row, other]))
    assert [(pair.lang, pair.student) for pair in found] == [
        ("en", "a fox"), ("zh", "狐狸"), ("fr", "renard"), ("zh", "狐"),
    ]  # fmt: skip
    assert text.repeated == 5


def test_a_table_in_parquet_names_its_row(tmp_path):
    pl.DataFrame({"en": ["a fox", None], "zh": ["狐狸", "狗"], "fr": [None, "chien"]}).write_parquet(
        tmp_path / "table.parquet"
    )
    with pytest.raises(InputError, match=r"table\.parquet#1: no English sentence"):
        pairs_of(str(tmp_path / "table.parquet"))


@pytest.mark.parametrize("columns", [("en", "zh"), ("text", "text_zh")])
def test_an_empty_side_of_two_columns_is_bad(tmp_path, columns):
    english, chinese = columns
    file = jsonl(
        tmp_path / "two.jsonl", [{english: "a fox", chinese: "狐狸"}, {english: "a dog", chinese: None}]
    )
    with pytest.raises(InputError, match=r"two\.jsonl:2: the zh side is empty"):
        pairs_of(file)
    bad = BadRows("1")
    text = ParallelText(("en", "zh"), bad=bad)
    assert len(list(text.pairs(read([file], bad=bad)))) == 2
    assert bad.count == 1


def test_keys_are_a_set_whatever_runs_they_are_in():
    keys, known = _Keys(newest=7), set()
    for i in range(500):
        key = int.from_bytes(hashlib.blake2b(str(i % 211).encode(), digest_size=8).digest(), "big")
        assert keys.add(key) == (key not in known)
        known.add(key)
    lengths = [len(run) for run in keys._runs]
    assert all(a >= 2 * b for a, b in pairwise(lengths))


def write_all(mixture, path, out, **options):
    return write_mixture(
        mixture, lambda bad: read([path], bad=bad), out, per_file=options.pop("per_file", 7), bad=BadRows("0")
    )


def many(tmp_path):
    rows = [
        {"en": f"opus {i}", "zh": f"甲{i}", "fr": f"o {i}" if i % 2 else "", "source": "opus"}
        for i in range(40)
    ]
    rows += [{"en": f"laion {i}", "zh": f"乙{i}", "fr": f"l {i}", "source": "laion"} for i in range(30)]
    return jsonl(tmp_path / "many.jsonl", rows)


def test_all_pairs_where_nothing_is_chosen(tmp_path):
    file = many(tmp_path)
    found = write_all(ParallelMixture(("en", "zh", "fr")), file, tmp_path / "out")
    wanted, _ = pairs_of(file)
    written = pl.read_parquet(tmp_path / "out" / "*.parquet").rows()
    assert written == [(p.teacher, p.student, p.lang, p.source) for p in wanted]
    assert found["written"] == len(wanted) == 190
    heights = [pl.read_parquet(file).height for file in sorted((tmp_path / "out").iterdir())]
    assert heights == [7] * 27 + [1]
    # and what is written is read as the same pairs
    again, _ = pairs_of(str(tmp_path / "out"))
    assert sorted(again) == sorted(wanted)


def test_a_mixture_is_equal_by_language_and_in_shares_by_source(tmp_path):
    """As many as can be: French has 20 of opus, which are 2 of 3 parts."""
    file = many(tmp_path)
    shares = {"opus": Fraction(2), "laion": Fraction(1)}
    write_all(ParallelMixture(("en", "zh", "fr"), True, shares, seed=3), file, tmp_path / "out")
    written = pl.read_parquet(tmp_path / "out" / "*.parquet")
    counts = Counter(zip(written["lang"], written["source"], strict=True))
    assert counts == {(lang, s): n for lang in ("en", "zh", "fr") for s, n in (("opus", 20), ("laion", 10))}
    wanted = set()
    everything, _ = pairs_of(file)
    for lang in ("en", "zh", "fr"):
        for source, n in (("opus", 20), ("laion", 10)):
            of = [p for p in everything if (p.lang, p.source) == (lang, source)]

            def drawn(pair):
                text = f"parallel:3:{pair.key:x}".encode()
                return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")

            wanted |= {(p.teacher, p.student, p.lang, p.source) for p in sorted(of, key=drawn)[:n]}
    assert set(written.rows()) == wanted
    other = ParallelMixture(("en", "zh", "fr"), True, shares, seed=4)
    write_all(other, file, tmp_path / "other")
    assert set(pl.read_parquet(tmp_path / "other" / "*.parquet").rows()) != wanted


def test_what_a_mixture_cannot_have(tmp_path):
    file, out = many(tmp_path), tmp_path / "out"
    halves = {"opus": Fraction(1), "laion": Fraction(1)}
    cause = (
        "only 20 pairs in 'fr' are of source 'opus', too few for 60 of each language; --sample 40 can be had"
    )
    with pytest.raises(UsageError, match=cause):
        write_all(ParallelMixture(("en", "zh", "fr"), True, halves, 60), file, out)
    with pytest.raises(UsageError, match="only 0 pairs in 'en' are of source 'cc3m'"):
        write_all(ParallelMixture(("en", "zh"), True, {"cc3m": Fraction(1)}), file, out)
    assert not out.exists()
