"""Selections beside literal ones in plain Python; in memory and spilled; whatever the order, the batches, the parts."""

from __future__ import annotations

import hashlib
import random
import unicodedata
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_corpus_rules import batch_of

from vlcli.curation.amount import Amount, apportion, parse_amount
from vlcli.curation.chance import draws, within
from vlcli.curation.features import Features
from vlcli.curation.fields import Fields
from vlcli.curation.first_rows import First, FirstImages
from vlcli.curation.hold_out import HoldOut
from vlcli.curation.mixture import Mixture, parse_mixture
from vlcli.curation.ranking import Ranking
from vlcli.curation.ratio_split import RatioSplit, parse_sides
from vlcli.curation.row_table import RowTable
from vlcli.curation.sample import Sample, Share
from vlcli.curation.selecting import Selecting
from vlcli.curation.selection import HELD_OUT, LEFT_OUT
from vlcli.curation.selections import parse_selections
from vlcli.errors import InputError, UsageError
from vlcli.records.batch import Batch

SPILLED = {"held_rows": 5}  # of Ranking: nothing fits
SEED = 3


def rows_of(seed: int, number: int = 240) -> list[dict]:
    """Rows of few images, texts, languages and sources; some lack each of them; ids are all different."""
    chance = random.Random(seed)
    return [
        {
            "id": f"r{i}",
            "image_id": chance.choice([None, f"i{chance.randrange(number)}", f"i{chance.randrange(9)}"]),
            "text": chance.choice(
                [None, [], [f"t{chance.randrange(300)}"], ["caf\u00e9", f" t{chance.randrange(300)}"], ["cafe\u0301"]]
                if i % 10 == 0
                else [[f"t{chance.randrange(300)}"]]
            ),
            "lang": chance.choices(["zh", "en", "fr", None, ""], [6, 3, 1, 1, 1])[0],
            "source": chance.choice(["opus", "laion", "laion", "cc3m"]),
            "label": chance.choice([0, 1, 1.0, True]),
        }
        for i in range(number)
    ]  # fmt: skip


def as_batch(rows: list[dict]) -> Batch:
    known = ("id", "image_id", "text")
    batch = batch_of([{k: v for k, v in row.items() if k in known} for row in rows])
    rest = [{k: v for k, v in row.items() if k not in known} for row in rows]
    return Batch(batch.frame, rest, "rows.jsonl", True)


def batches_of(rows: list[dict], size: int) -> list[Batch]:
    return [as_batch(rows[i : i + size]) for i in range(0, len(rows), size)]


def verdicts(selection, rows: list[dict], size: int = 50) -> list[int]:
    """What one selection says of rows, through a table that is on disk where `size` is small."""
    features = Features(selection.needs, SEED, Fields())
    with RowTable(piece_rows=20 if size < 20 else 1 << 19) as table:
        for batch in batches_of(rows, size):
            table.append(features.of(batch))
        if selection.reach == "all":
            selection.decide(table.pieces, features.names)
        return [v for piece in table.pieces() for v in selection.select(piece).tolist()]


def taken(selection, rows: list[dict], size: int = 50) -> list[str]:
    return [row["id"] for row, v in zip(rows, verdicts(selection, rows, size), strict=True) if v != LEFT_OUT]


def draw(purpose: str, name: str) -> int:
    digest = hashlib.blake2b(f"{purpose}:{SEED}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def lowest(rows: list[dict], number: int, purpose: str = "sample") -> list[dict]:
    return sorted(rows, key=lambda row: draw(purpose, row["id"]))[:number]


def in_order(rows: list[dict], some: list[dict]) -> list[str]:
    names = {row["id"] for row in some}
    return [row["id"] for row in rows if row["id"] in names]


def value_of(row: dict, column: str) -> str | None:
    value = row[column]
    return None if value in (None, "") else str(int(value)) if type(value) is float else str(value)


def test_a_draw_is_what_b2sum_prints():
    assert draws("sample", 0, ["fxemoji/1f98a"]).tolist() == [0x8DF5CB71CE7FBFA7]
    assert draws("split", 7, ["图.png"]).tolist() == [0x08C988017564F348]
    assert draws("sample", SEED, []).tolist() == []


def test_a_share_of_all_numbers_is_exact_at_its_end():
    third = within(np.array([0, 2**64 // 3, 2**64 // 3 + 1, 2**64 - 1], np.uint64), Fraction(1, 3))
    assert third.tolist() == [True, True, False, False]
    half = within(np.array([2**63 - 1, 2**63], np.uint64), Fraction(1, 2))
    assert half.tolist() == [True, False]
    assert within(np.array([0, 2**64 - 1], np.uint64), Fraction(1)).all()


@pytest.mark.parametrize(
    ("text", "whole", "number"),
    [("7", 10, 7), ("7", 5, 5), ("10%", 25, 3), ("10%", 24, 2), ("0.1%", 1500, 2), ("100%", 9, 9)],
)
def test_amounts(text, whole, number):
    assert parse_amount(text, "--sample").of(whole) == number


@pytest.mark.parametrize("text", ["0", "0%", "101%", "1.5", "-1", "x", "", "1e3", "%"])
def test_what_is_no_amount(text):
    with pytest.raises(UsageError, match="--first"):
        parse_amount(text, "--first")


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), min_size=1, max_size=30),
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
)
def test_every_stratum_is_rounded_down_or_up_and_the_sums_are_too(strata, weights):
    weights = [Fraction(w) for w in weights]
    owed, sums = None, [0] * len(weights)
    for total, _ in strata:
        parts, owed = apportion(total, weights, owed)
        assert sum(parts) == total
        for i, (part, weight) in enumerate(zip(parts, weights, strict=True)):
            exact = total * weight / sum(weights)
            assert int(exact) <= part <= -(-exact.numerator // exact.denominator)
            sums[i] += part
    whole = sum(total for total, _ in strata)
    for number, weight in zip(sums, weights, strict=True):
        assert abs(number - whole * weight / sum(weights)) < len(weights)


def test_the_largest_remainders_win_and_of_equal_ones_the_first():
    eight_one_one = [Fraction(8), Fraction(1), Fraction(1)]
    assert apportion(14, eight_one_one)[0] == [11, 2, 1]  # 11.2, 1.4, 1.4
    assert apportion(19, eight_one_one)[0] == [15, 2, 2]  # 15.2, 1.9, 1.9
    assert apportion(0, eight_one_one)[0] == [0, 0, 0]


@pytest.mark.parametrize("sizes", [{}, SPILLED])
@pytest.mark.parametrize("number", [1, 2, 30, 239, 240, 300])
def test_a_sample_of_exactly_n(number, sizes):
    rows = rows_of(number)
    sample = Sample(Amount(number), **sizes)
    assert taken(sample, rows, 7) == in_order(rows, lowest(rows, number))
    assert sample.told()["short"] == (number > len(rows))


@pytest.mark.parametrize("sizes", [{}, SPILLED])
@pytest.mark.parametrize("amount", ["5", "100", "10%", "33.3%"])
@pytest.mark.parametrize("column", ["lang", "label"])
def test_a_sample_of_each_value(amount, column, sizes):
    rows = rows_of(1)
    amount = parse_amount(amount, "--sample")
    values = defaultdict(list)
    for row in rows:
        values[value_of(row, column).lower() if row[column] is True else value_of(row, column)].append(row)
    values.pop(None, None)
    expected = [row for group in values.values() for row in lowest(group, amount.of(len(group)))]
    sample = Sample(amount, column, **sizes)
    assert taken(sample, rows, 7) == in_order(rows, expected)
    told = {line["value"]: (line["of"], line["taken"]) for line in sample.told()["by_value"]}
    assert told == {name: (len(group), amount.of(len(group))) for name, group in values.items()}


def test_a_share_asks_each_row_alone_and_smaller_samples_are_parts_of_larger_ones():
    rows = rows_of(2)
    share = Share(Amount(share=Fraction(1, 10)))
    assert share.reach == "row"
    expected = [row["id"] for row in rows if draw("sample", row["id"]) < 2**64 / 10]
    assert taken(share, rows) == expected
    assert set(expected) < set(taken(Share(Amount(share=Fraction(1, 2))), rows))
    assert set(taken(Sample(Amount(10)), rows)) < set(taken(Sample(Amount(11)), rows))


def test_of_rows_with_one_id_the_first_are_taken():
    rows = [{**row, "id": "same"} for row in rows_of(0, 9)]
    for sizes in ({}, SPILLED, {"held_rows": 1}):
        assert verdicts(Sample(Amount(4), **sizes), rows, 2) == [0] * 4 + [LEFT_OUT] * 5


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 3)), max_size=80), st.integers(1, 90))
def test_ranks(drawn, held_rows):
    numbers = np.array([d for d, _ in drawn], np.uint64)
    strata = np.array([s for _, s in drawn], np.uint64)
    for most in (None, 3):
        found = {}
        with Ranking(most=most, held_rows=held_rows) as ranking:
            for at in range(0, len(drawn), 7):
                part = slice(at, at + 7)
                ranking.add(numbers[part], strata[part], np.arange(len(drawn))[part])
            for place, rank, row in ranking:
                found |= dict(zip(row.tolist(), zip(place.tolist(), rank.tolist(), strict=True), strict=True))
            assert dict(zip(ranking.strata.tolist(), ranking.sizes.tolist(), strict=True)) == Counter(
                strata.tolist()
            )
        kinds = sorted(set(strata.tolist()))
        for row, (number, stratum) in enumerate(drawn):
            rank = sum(s == stratum and (d, i) < (number, row) for i, (d, s) in enumerate(drawn))
            if most is None or rank < most:
                assert found[row] == (kinds.index(stratum), rank)


def plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


@pytest.mark.parametrize("number", [1, 5, 60, 240])
def test_a_test_set_that_the_rest_shares_nothing_with(number):
    rows = rows_of(number)
    held = {row["id"] for row in lowest(rows, number, "hold-out")}
    images = {row["image_id"] for row in rows if row["id"] in held} - {None}
    texts = {plain(text) for row in rows if row["id"] in held for text in row["text"] or ()}
    expected = [
        HELD_OUT
        if row["id"] in held
        else LEFT_OUT
        if row["image_id"] in images or any(plain(text) in texts for text in row["text"] or ())
        else 0
        for row in rows
    ]
    for size in (7, 300):
        assert verdicts(HoldOut(number, **SPILLED), rows, size) == expected
    if number in (5, 60):
        assert {HELD_OUT, LEFT_OUT, 0} == set(expected)


def test_a_test_set_larger_than_what_passes_is_refused():
    with pytest.raises(UsageError, match=r"--hold-out 241: only 240 rows pass"):
        verdicts(HoldOut(241), rows_of(0))


def test_the_first_rows_and_the_first_percent():
    rows = rows_of(0)
    names = [row["id"] for row in rows]
    assert taken(First(Amount(17)), rows, 7) == names[:17]
    assert taken(First(parse_amount("1%", "--first")), rows, 7) == names[:2]
    assert taken(First(parse_amount("100%", "--first")), rows, 7) == names
    assert First(Amount(17)).reach == "before"
    more = First(Amount(300))
    assert (taken(more, rows), more.told()["short"]) == (names, 1)


@pytest.mark.parametrize("number", [1, 2, 8, 50, 10_000])
def test_the_first_images_with_all_their_captions(number):
    rows = rows_of(5)
    images: dict[str, None] = {}
    for row in rows:
        if row["image_id"] is not None and len(images) < number:
            images[row["image_id"]] = None
    expected = [row["id"] for row in rows if row["image_id"] in images]
    for size in (1, 7, 300):
        selection = FirstImages(number)
        assert taken(selection, rows, size) == expected
        assert selection.told()["images"] == len(images)


def mixed(rows: list[dict], weights: dict[str, int], column: str, within: str | None, total: int | None):
    """The ids by hand: the largest total for which every value has enough rows, then the lowest draws."""
    groups = defaultdict(list)
    for row in rows:
        outer = value_of(row, within) if within else "all"
        if outer is not None and row[column] in weights:
            groups[outer, row[column]].append(row)
    outers = sorted({outer for outer, _ in groups})
    whole = sum(weights.values())
    most = 0
    while all(len(groups[o, v]) * whole >= (most + 1) * w for o in outers for v, w in weights.items()):
        most += 1
    total = most if total is None else total
    found = []
    for outer in outers:
        exact = {v: Fraction(total * w, whole) for v, w in weights.items()}
        parts = {v: int(e) for v, e in exact.items()}
        for v in sorted(exact, key=lambda v: parts[v] - exact[v])[: total - sum(parts.values())]:
            parts[v] += 1
        for v, part in parts.items():
            found += lowest(groups[outer, v], part)
    return most, in_order(rows, found)


WEIGHTS = "source:opus=5,laion=10,cc3m=3"


@pytest.mark.parametrize("sizes", [{}, SPILLED])
@pytest.mark.parametrize("per_key", [None, "lang"])
@pytest.mark.parametrize("total", [None, 5, 18])
def test_mixtures_with_weights(per_key, total, sizes):
    rows = rows_of(11, 900)
    mixture = Mixture(parse_mixture(WEIGHTS), total, per_key, **sizes)
    most, expected = mixed(rows, {"opus": 5, "laion": 10, "cc3m": 3}, "source", per_key, total)
    assert most > 18
    assert taken(mixture, rows, 70) == expected
    told = mixture.told()
    assert sum(line["taken"] for line in told["by_value"]) == len(expected) == told["total"]


def test_the_same_amount_for_every_language():
    rows = rows_of(12)
    counts = Counter(row["lang"] for row in rows if row["lang"])
    mixture = Mixture(parse_mixture("lang"))
    found = [row for row in rows if row["id"] in set(taken(mixture, rows))]
    assert Counter(row["lang"] for row in found) == dict.fromkeys(counts, min(counts.values()))
    for name in counts:
        own = [row for row in rows if row["lang"] == name]
        mine = [row for row in found if row["lang"] == name]
        assert in_order(rows, mine) == in_order(rows, lowest(own, len(mine)))


def test_a_mixture_that_cannot_be_says_what_is_missing():
    rows = [{**row, "lang": "zh"} for row in rows_of(0, 60)]
    short = Counter(row["source"] for row in rows)["cc3m"]
    with pytest.raises(
        UsageError, match=f"only {short} rows have 'cc3m', too few for a total of 600"
    ) as found:
        verdicts(Mixture(parse_mixture("source:cc3m=1,opus=1"), 600), rows)
    assert "--sample " in str(found.value)
    with pytest.raises(UsageError, match="no row has 'yfcc'"):
        verdicts(Mixture(parse_mixture("source:opus=1,yfcc=2")), rows)
    with pytest.raises(UsageError, match=r"no row of lang fr has '(cc3m|laion)'"):
        verdicts(
            Mixture(parse_mixture("source"), None, "lang"),
            [*rows, {**rows[0], "lang": "fr", "source": "opus"}],
        )
    with pytest.raises(UsageError, match="--mix: no row has a value in 'nothing'"):
        verdicts(Mixture(parse_mixture("nothing")), [{**row, "nothing": None} for row in rows])
    with pytest.raises(UsageError, match="--per-key nothing: no row"):
        verdicts(Sample(Amount(1), "nothing"), rows)
    with pytest.raises(UsageError, match="--stratify nothing: no row"):
        verdicts(RatioSplit(parse_sides("8:1:1"), "nothing"), rows)


@pytest.mark.parametrize("value", ["", ":a=1", "c:", "c:a", "c:a=0", "c:a=x", "c:a=1,a=2", "c:=1", "c:a=1/0"])
def test_what_is_no_mixture(value):
    with pytest.raises(UsageError, match="--mix"):
        parse_mixture(value)


@pytest.mark.parametrize("value", ["8", "8:x", "8:0", "1:1:1:1", "a=1", "a=1,a=1", "=1,b=2", ""])
def test_what_is_no_split(value):
    with pytest.raises(UsageError, match="--split"):
        parse_sides(value)


def test_names_of_sides():
    assert parse_sides("8:1:1").names == ["train", "val", "test"]
    assert parse_sides("9:1").names == ["train", "val"]
    assert parse_sides("train=9, dev=0.5").weights == (("train", Fraction(9)), ("dev", Fraction(1, 2)))


def sides_by_hand(rows: list[dict], weights: list[int], column: str | None) -> list[int]:
    """Literal: quotas by largest remainders carried on, images of several rows dealt, the others in their order."""
    names = [row["image_id"] or row["id"] for row in rows]
    codes = [
        0
        if column is None or value_of(row, column) is None
        else int.from_bytes(hashlib.blake2b(value_of(row, column).encode(), digest_size=8).digest(), "big")
        for row in rows
    ]
    quotas, owed = {}, [Fraction(0)] * len(weights)
    for code in sorted(set(codes)):
        exact = [Fraction(codes.count(code) * w, sum(weights)) for w in weights]
        parts = [int(e) for e in exact]
        owed = [o + e - p for o, e, p in zip(owed, exact, parts, strict=True)]
        with_rest = [i for i, e in enumerate(exact) if e.denominator > 1]
        for i in sorted(with_rest, key=lambda i: -owed[i])[: codes.count(code) - sum(parts)]:
            parts[i] += 1
            owed[i] -= 1
        quotas[code] = parts
    wants = {code: list(parts) for code, parts in quotas.items()}
    members = defaultdict(list)
    for i, name in enumerate(names):
        members[name].append(i)
    found = [-9] * len(rows)
    several = [name for name, rows_ in members.items() if len(rows_) > 1]
    for name in sorted(several, key=lambda name: (-len(members[name]), draw("split", name))):
        need = Counter(codes[i] for i in members[name])
        room = [j for j in range(len(weights)) if all(wants[c][j] >= n for c, n in need.items())]
        if room:
            best = max(
                room, key=lambda j: sum(n * wants[c][j] / quotas[c][j] for c, n in sorted(need.items()))
            )
        else:
            best = max(range(len(weights)), key=lambda j: sum(n * wants[c][j] for c, n in need.items()))
        for i in members[name]:
            found[i] = best
            wants[codes[i]][best] -= 1
    for code in wants:
        alone = [i for i, c in enumerate(codes) if c == code and len(members[names[i]]) == 1]
        alone.sort(key=lambda i: draw("split", names[i]))
        lacking = [max(n, 0) for n in wants[code]]
        parts = apportion(len(alone), [Fraction(n) for n in lacking])[0] if alone else []
        for side, part in enumerate(parts):
            for i in alone[:part]:
                found[i] = side
            alone = alone[part:]
    return found


@pytest.mark.parametrize("sizes", [{}, SPILLED])
@pytest.mark.parametrize("column", [None, "lang", "source"])
@pytest.mark.parametrize("seed", range(3))
def test_a_split_as_by_hand(seed, column, sizes):
    rows = rows_of(seed)
    found = verdicts(RatioSplit(parse_sides("8:1:1"), column, **sizes), rows, 7)
    assert found == sides_by_hand(rows, [8, 1, 1], column)
    sides = defaultdict(set)
    for row, side in zip(rows, found, strict=True):
        sides[row["image_id"] or row["id"]].add(side)
    assert all(len(some) == 1 for some in sides.values())
    assert max(Counter(row["image_id"] for row in rows if row["image_id"]).values()) > 5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=120),
    st.sampled_from(["8:1:1", "7:3", "1:1:1"]),
)
def test_with_one_row_an_image_every_stratum_is_exact(labels, ratio):
    rows = [{"id": str(i), "image_id": f"i{i}", "label": label} for i, label in enumerate(labels)]
    split = RatioSplit(parse_sides(ratio), "label")
    found = verdicts(split, rows)
    weights = [int(w) for w in ratio.split(":")]
    for label in set(labels):
        own = Counter(side for side, row in zip(found, rows, strict=True) if row["label"] == label)
        for side, weight in enumerate(weights):
            assert abs(own[side] - Fraction(labels.count(label) * weight, sum(weights))) < 1
    for side, weight in enumerate(weights):  # and so is the whole, though every stratum is rounded
        assert abs(found.count(side) - Fraction(len(rows) * weight, sum(weights))) < len(weights)
    told = {line["value"]: line["sides"] for line in split.told()["by_value"]}
    assert told.keys() == set(labels)
    for label, line in told.items():
        own = Counter(side for side, row in zip(found, rows, strict=True) if row["label"] == label)
        assert [line[name] for name in split.sides.names] == [own[i] for i in range(len(weights))]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=60))
def test_images_of_several_rows_cost_at_most_one_image_less_one(captions):
    rows = [
        {"id": f"{i}/{j}", "image_id": f"i{i}"} for i, number in enumerate(captions) for j in range(number)
    ]
    found = Counter(verdicts(RatioSplit(parse_sides("8:1:1")), rows))
    quotas, _ = apportion(len(rows), [Fraction(8), Fraction(1), Fraction(1)])
    for side, quota in enumerate(quotas):
        assert found[side] <= quota + max(captions) - 1


def test_five_captions_an_image_reach_every_side_in_proportion():
    rows = [{"id": f"{i}/{j}", "image_id": f"i{i}"} for i in range(1000) for j in range(5)]
    rows += [{"id": f"alone{i}", "image_id": f"a{i}"} for i in range(1000)]
    found = verdicts(RatioSplit(parse_sides("8:1:1")), rows)
    assert [found.count(side) for side in range(3)] == [4800, 600, 600]
    assert [found[:5000].count(side) for side in range(3)] == [4000, 500, 500]


ASKED = [
    {"sample": "40"},
    {"sample": "25%"},
    {"sample": "10", "per_key": "lang"},
    {"sample": "20%", "per_key": "source"},
    {"mix": WEIGHTS},
    {"mix": "lang", "sample": "12"},
    {"hold_out": 9},
    {"split": "8:1:1"},
    {"split": "2:1", "stratify": "lang"},
    {"hold_out": 9, "sample": "90", "split": "8:1:1", "stratify": "source"},
]
FIRST = [
    {"first": "31"},
    {"first": "10%"},
    {"first_images": 6},
    {"hold_out": 4, "first_images": 30, "first": "50%"},
]


def select(
    asked: dict, batches: list[Batch], parts: list[list[Batch]] | None = None, folder=None
) -> dict[str, tuple]:
    """id → (kept or held out, side) of what is not left out; with `parts`, each on its own."""
    selections = parse_selections(**asked, seed=SEED)
    found: dict[str, tuple] = {}

    def take(selecting: Selecting, some: list[Batch]) -> None:
        for batch in some:
            chosen = selecting.select(batch)
            for i, name in enumerate(batch.frame["id"].to_list()):
                if not chosen.dropped[i]:
                    assert name not in found
                    found[name] = (bool(chosen.held_out[i]), int(chosen.sides[i]) if chosen.kept[i] else None)
        selecting.finish()

    if parts is None:
        with Selecting(selections, Fields()) as selecting:
            if selecting.looks_ahead:
                for batch in batches:
                    selecting.observe(batch)
                selecting.decide()
            take(selecting, batches)
        return found
    folders = [folder / str(i) for i in range(len(parts))]
    for part, path in zip(parts, folders, strict=True):
        with Selecting(selections, Fields()) as selecting:
            for batch in part:
                selecting.observe(batch)
            selecting.save(path)
    for i, part in enumerate(parts):
        with Selecting(selections, Fields()) as selecting:
            selecting.decide(folders, i)
            take(selecting, part)
    return found


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_chance_does_not_know_the_order(asked):
    rows = rows_of(21)
    expected = select(asked, batches_of(rows, 50))
    assert 0 < len(expected) <= len(rows)
    for seed in range(3):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert select(asked, batches_of(shuffled, 1 + 30 * seed)) == expected


@pytest.mark.parametrize("asked", ASKED + FIRST, ids=str)
def test_parts_choose_what_the_whole_does(asked, tmp_path):
    rows = rows_of(22)
    expected = select(asked, batches_of(rows, 50))
    parts = [batches_of(rows[:100], 30), [], batches_of(rows[100:101], 30), batches_of(rows[101:], 30)]
    assert select(asked, [], parts, tmp_path) == expected


def test_another_seed_is_another_choice():
    rows = rows_of(23)
    one, two = (
        {name for batch in batches_of(rows, 50) for name in select_ids(batch, seed)} for seed in (0, 1)
    )
    assert one != two


def select_ids(batch: Batch, seed: int) -> list[str]:
    with Selecting(parse_selections(sample="50%", seed=seed), Fields()) as selecting:
        assert not selecting.looks_ahead
        return batch.frame["id"].filter(selecting.select(batch).kept).to_list()


def test_parts_of_something_else_are_refused(tmp_path):
    batches = batches_of(rows_of(0), 50)
    for name, asked in (("a", {"sample": "9"}), ("b", {"sample": "8"})):
        with Selecting(parse_selections(**asked), Fields()) as selecting:
            selecting.observe(batches[0])
            selecting.save(tmp_path / name)
            with pytest.raises(UsageError, match="exists"):
                selecting.save(tmp_path / name)
    with Selecting(parse_selections(sample="9"), Fields()) as selecting:
        with pytest.raises(UsageError, match="other selections"):
            selecting.decide([tmp_path / "a", tmp_path / "b"])
        with pytest.raises(InputError, match="not what a part"):
            selecting.decide([tmp_path / "a", tmp_path / "c"])


@pytest.mark.parametrize("more", [1, -1])
def test_an_input_that_has_changed_is_told(more):
    rows = rows_of(0)
    with Selecting(parse_selections(sample="9"), Fields()) as selecting:
        selecting.observe(as_batch(rows))
        selecting.decide()
        if more > 0:
            with pytest.raises(InputError, match="has changed"):
                selecting.select(as_batch([*rows, {"id": "new"}]))
        else:
            selecting.select(as_batch(rows[:-1]))
            with pytest.raises(InputError, match="has changed"):
                selecting.finish()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"per_key": "lang"}, "--per-key lang says nothing alone"),
        ({"stratify": "lang"}, "--stratify lang says nothing alone"),
        ({"mix": "lang", "sample": "10%"}, "a mixture takes a number"),
    ],
)
def test_options_that_mean_nothing_together(asked, message):
    with pytest.raises(UsageError, match=message):
        parse_selections(**asked)


def test_a_column_that_cannot_tell_rows_apart_is_told_with_its_line():
    rows = [{"id": "a", "tags": "x"}, {"id": "b", "tags": ["x"]}]
    batch = as_batch(rows)
    batch = Batch(batch.frame.with_columns(line=np.array([1, 2])), batch.rest, "rows.jsonl", True)
    with pytest.raises(InputError, match=r"rows.jsonl:2: tags is a list"):
        Features(Sample(Amount(1), "tags").needs, 0, Fields()).of(batch)
