"""The judge against a row-by-row reference, and its accounting on cases worked out by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlcli.curation.judge import BAD, KEPT, Judge
from vlcli.curation.plan import resolve
from vlcli.curation.preset import load_preset
from vlcli.curation.query_cap import max_per_query, query_keys, ranks
from vlcli.curation.rule import Change
from vlcli.curation.text_frequency import COUNT, PLAIN, FrequentTexts
from vlcli.curation.where import Where
from vlcli.records.batch import BOOKKEEPING, COLUMNS, Batch
from vlcli.records.occurrences import Occurrences


def ranks_of():
    seen = Occurrences()
    return lambda queries: ranks(queries, seen.count(query_keys(queries)))


def batch_of(rows: list[dict[str, Any]]) -> Batch:
    """Rows as the JSONL reader gives them."""
    known = [
        {
            **{name: row.get(name) for name in COLUMNS},
            "line": i + 1,
            "text_is_scalar": isinstance(row.get("text"), str),
        }
        for i, row in enumerate(rows)
    ]
    for row in known:
        row["text"] = [row["text"]] if isinstance(row["text"], str) else row["text"]
        row["image_bytes"] = None
    rest = [{k: v for k, v in row.items() if k not in COLUMNS} for row in rows]
    return Batch(pl.DataFrame(known, schema=COLUMNS | BOOKKEEPING), rest, "rows.jsonl", True)


def frequent(counts: dict[str, int]) -> FrequentTexts:
    return FrequentTexts(
        pl.DataFrame(
            {PLAIN: list(counts), COUNT: list(counts.values())},
            schema={PLAIN: pl.String(), COUNT: pl.Int64()},
        )
    )


def judged(
    rows: list[dict[str, Any]], options: dict[str, Any], *, where: str | None = None, counts=None, preset=None
):
    plan = resolve(load_preset(preset) if preset else None, options, where=where)
    condition, steps = plan.steps()
    judge = Judge(condition, steps, ranks=ranks_of(), known={COUNT: frequent(counts or {})})
    docket = judge.judge(batch_of(rows))
    names = [step.name for step in judge.steps]
    charged = ["kept" if c == KEPT else names[c] for c in docket.charged.tolist()]
    texts = docket.result().take(pl.Series(docket.standing)).frame["text"].to_list()
    return charged, texts, {t.name: t for t in judge.tallies}


SIZE = {"width": 300, "height": 300}


def test_a_row_is_charged_to_the_first_rule_in_order_that_fails():
    rows = [
        {"text": "IMG.jpg", "width": 200, "height": 900},  # everything fails
        {"text": "IMG.jpg", "width": 201, "height": 900},  # aspect, words, meaningless
        {"text": "IMG.jpg", **SIZE},  # words, meaningless
        {"text": "狗.jpg", **SIZE},  # meaningless
        {"text": "查看源网页", **SIZE},
        {"text": "一只狗", **SIZE},
    ]
    charged, _, tally = judged(
        rows, {"mask-names": False}, preset="wukong", counts={"查看源网页": 11, "狗.jpg": 12}
    )
    assert charged == ["min-side", "max-aspect", "min-words", "drop-meaningless", "max-text-freq", "kept"]
    assert [(t.rows.seen, t.rows.kept) for t in tally.values()] == [
        (6, 6), (6, 5), (5, 4), (4, 3), (3, 3), (3, 2), (2, 1),
    ]  # fmt: skip


def test_a_list_of_texts_is_judged_text_by_text():
    rows = [
        {"text": ["狗", "IMG.jpg", "猫" * 32], **SIZE},
        {"text": ["a", "猫" * 32], **SIZE},  # min-words takes one, max-words the last
        {"text": ["猫" * 32, "a"], **SIZE},  # whatever their order
        {"text": ["a", "b"], **SIZE},
        {"text": "狗", **SIZE},
    ]
    charged, texts, tally = judged(rows, {"min-words": "1", "max-words": "<32", "drop-meaningless": True})
    assert charged == ["kept", "max-words", "max-words", "min-words", "kept"]
    assert texts == [["狗"], ["狗"]]
    assert (tally["min-words"].texts.seen, tally["min-words"].texts.kept) == (10, 5)
    assert (tally["max-words"].texts.seen, tally["max-words"].texts.kept) == (5, 2)
    assert (tally["min-words"].rows.seen, tally["min-words"].rows.kept) == (5, 4)


@pytest.mark.parametrize("text", [None, []])
def test_a_row_without_text_fails_what_asks_for_words_and_passes_what_does_not(text):
    rows = [{"text": text, **SIZE}]
    assert judged(rows, {"min-words": "1"})[0] == ["min-words"]
    assert judged(rows, {"drop-meaningless": True})[0] == ["drop-meaningless"]
    charged, texts, tally = judged(rows, {"max-words": "5", "max-text-freq": "1"}, counts={"": 9})
    assert (charged, texts) == (["kept"], [text])
    assert tally["max-words"].texts.seen == 0


def test_the_cap_counts_what_the_condition_lets_pass_in_input_order():
    rows = [{"query": q, "n": i} for i, q in enumerate(["狗", "狗", None, "狗", "", "狗", "猫", None])]
    charged, _, tally = judged(rows, {"max-per-query": "2"}, where="n > 0")
    assert charged == ["where", "kept", "kept", "kept", "kept", "max-per-query", "kept", "kept"]
    assert (tally["max-per-query"].rows.seen, tally["max-per-query"].rows.kept) == (7, 6)


def test_the_1001st_row_of_a_query_goes_across_batches():
    rule = max_per_query(load_bound("max-per-query"))
    judge = Judge(None, [rule], ranks=ranks_of())
    kept = 0
    for _ in range(4):
        docket = judge.judge(batch_of([{"query": "狗"}] * 333))
        kept += int(docket.standing.sum())
    assert kept == 1000
    assert (judge.tallies[0].rows.seen, judge.tallies[0].rows.kept) == (1332, 1000)


def load_bound(name: str):
    return resolve(load_preset("wukong"), {}).bound(name)


def test_masking_comes_after_frequency_and_before_sensitive_words(tmp_path):
    def shout(texts):
        return [t.replace("张三", "〈人名〉") for t in texts], [
            n for t in texts for n in ["张三"] * t.count("张三")
        ]

    words = tmp_path / "words.txt"
    words.write_text("张三\n坏\n", encoding="utf-8")
    plan = resolve(None, {"max-text-freq": "10", "sensitive-words": str(words)})
    _, (frequency, sensitive) = plan.steps()
    steps = [frequency, Change("mask-names", "", shout), sensitive]
    judge = Judge(None, steps, known={COUNT: frequent({"张三和狗": 11, "〈人名〉在吃": 99})})
    docket = judge.judge(
        batch_of(
            [{"text": ["张三和狗", "张三在吃", "坏狗"]}, {"text": "张三"}, {"text": "坏"}, {"text": "狗"}]
        )
    )
    assert docket.result().frame["text"].to_list() == [["〈人名〉在吃"], ["〈人名〉"], ["坏"], ["狗"]]
    assert docket.charged.tolist() == [KEPT, KEPT, 2, KEPT]
    assert judge.tallies[1].changed_texts == judge.tallies[1].replaced == 2
    assert judge.replaced[1].shown(5)["strings"] == [{"text": "张三", "count": 2}]
    assert [t.rows.shown() for t in judge.tallies] == [
        {"seen": 4, "kept": 4, "dropped": 0},
        {"seen": 4, "kept": 4, "dropped": 0},
        {"seen": 4, "kept": 3, "dropped": 1},
    ]


def test_sizes_are_looked_up_only_for_rows_that_stand_and_need_them():
    asked: list[list[str]] = []

    def sizes(batch: Batch):
        asked.append(batch.frame["image"].to_list())
        return pl.DataFrame({"width": [640, None], "height": [480, None]}), [(1, "not an image")]

    rows = [
        {"image": "out", "n": 0},
        {"image": "given", "n": 1, "width": 300, "height": 300},
        {"image": "absent", "n": 1, "width": 300},
        {"image": "broken", "n": 1, "text": "狗"},
    ]
    plan = resolve(None, {"min-side": ">200", "min-words": "0"}, where="n = 1")
    where, steps = plan.steps()
    judge = Judge(where, steps, sizes=sizes)
    docket = judge.judge(batch_of(rows))
    assert asked == [["absent", "broken"]]
    assert docket.charged.tolist() == [0, KEPT, KEPT, BAD]
    assert docket.bad == [(3, "not an image")]
    assert docket.result().frame["width"].to_list()[1:3] == [300, 640]
    assert [(t.rows.seen, t.rows.kept) for t in judge.tallies] == [(4, 3), (2, 2), (2, 2)]


TEXT = st.sampled_from(["狗", "一只狗", "狗" * 4, "dog", "7.jpg", "狗.jpg", "源网页", " 源网页 ", "123", ""])
ROW = st.fixed_dictionaries(
    {
        "text": st.none() | TEXT | st.lists(TEXT, max_size=3),
        "width": st.integers(1, 6),
        "height": st.integers(1, 6),
        "query": st.none() | st.sampled_from("甲乙"),
        "split": st.sampled_from(["a", "b", None]),
    }
)
ORDERS = st.permutations(
    ["min-side", "max-aspect", "lang", "min-words", "max-words", "drop-meaningless", "max-text-freq"]
)
VALUES = {
    "max-per-query": "<=2", "min-side": ">2", "max-aspect": "<=2", "lang": "zh", "min-words": ">=1",
    "max-words": "<4", "drop-meaningless": True, "max-text-freq": "<=2",
}  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(ROW, max_size=25), order=ORDERS)
def test_the_judge_equals_a_row_by_row_reference(rows, order, tmp_path_factory):
    order = ["max-per-query", *order]
    preset = tmp_path_factory.getbasetemp() / "order.toml"
    lines = [f"{name} = {'true' if VALUES[name] is True else repr(VALUES[name])}" for name in order]
    preset.write_text("[rules]\n" + "\n".join(lines), encoding="utf-8")
    expected_charged, expected_texts, counts = reference(rows, order)
    charged, texts, tally = judged(rows, {}, where="split = 'a'", preset=str(preset), counts=counts)
    assert charged == expected_charged
    assert texts == expected_texts
    assert list(tally) == ["where", *order]
    before = len(rows)
    for name, t in tally.items():
        assert (t.rows.seen, t.rows.kept) == (before, before - charged.count(name))
        before = t.rows.kept


def reference(rows, order):
    """One row and one rule at a time."""
    han = lambda t: sum("一" <= c <= "鿿" for c in t)  # noqa: E731
    passing, seen = [], Counter()
    for row in rows:
        if row["split"] != "a":
            passing.append("where")
            continue
        seen[row["query"]] += 1
        passing.append("max-per-query" if row["query"] and seen[row["query"]] > 2 else None)
    listed = [[r["text"]] if isinstance(r["text"], str) else r["text"] for r in rows]
    counts = Counter(
        t
        for texts, out in zip(listed, passing, strict=True)
        if not out
        for t in {x.strip() for x in texts or []}
    )
    text_rules = {
        "lang": lambda t: han(t) > 0 and 2 * han(t) >= sum(c.isalpha() for c in t),
        "min-words": lambda t: han(t) >= 1,
        "max-words": lambda t: han(t) < 4,
        "drop-meaningless": lambda t: t not in ("7.jpg", "狗.jpg", "123", ""),
        "max-text-freq": lambda t: counts[t.strip()] <= 2,
    }
    charged, kept = [], []
    for row, texts, out in zip(rows, listed, passing, strict=True):
        small, large = sorted((row["width"], row["height"]))
        left, none = (texts, False) if texts else ([""], True)
        for name in order[1:] if not out else []:
            if name == "min-side":
                out = None if small > 2 else name
            elif name == "max-aspect":
                out = None if large / small <= 2 else name
            elif not (none and name == "max-text-freq"):
                left = [t for t in left if text_rules[name](t)]
                out = None if left else name
            if out:
                break
        charged.append(out or "kept")
        if not out:
            kept.append(texts if none else left)
    return charged, kept, {t: n for t, n in counts.items() if n > 2}


def test_a_condition_reads_any_column_and_null_is_no():
    rows = [{"split": "train", "width": 3}, {"split": None}, {"other": [1]}, {"split": "val", "text": "狗"}]
    assert judged(rows, {}, where="split = 'train'")[0] == ["kept", "where", "where", "where"]
    assert judged(rows, {}, where="split IS NULL OR width > 2")[0] == ["kept", "kept", "kept", "where"]
    assert judged(rows[3:], {}, where="text = '狗'")[0] == ["kept"]
    assert judged(rows, {}, where="1 = 1")[0] == ["kept"] * 4


@pytest.mark.parametrize(
    ("sql", "cause"),
    [
        ("split =", "unable to parse"),
        ("width > AVG(width)", "each row by itself"),
        ("row_number() over (order by width) > 3", "each row by itself"),
        ("width", "not true or false"),
        ("count(*) > 1", "each row by itself"),
        ("split in (select 1)", "each row by itself"),
        ("split > 3", "where"),
        ("nothing(split)", "where"),
    ],
)
def test_a_condition_that_cannot_be_is_a_usage_error(sql, cause):
    from vlcli.errors import UsageError

    with pytest.raises(UsageError, match=cause):
        judged([{"split": "a", "width": 1}], {}, where=sql)


def test_a_column_that_no_row_has_is_found_out_at_the_end():
    from vlcli.errors import UsageError

    where = Where("splt = 'train' AND late = 1")
    for rows in ([{"split": "train"}], [{"late": 1}]):
        assert where.judge(where.view(batch_of(rows))).to_list() == [False]
    with pytest.raises(UsageError, match="'splt'"):
        where.finish()
    empty = Where("nowhere = 1")
    empty.finish()  # of no rows none is missing


@pytest.mark.parametrize("sql", ["note LIKE '%狗%' OR width > 2", "length(note) > 2 OR n = 1 OR width > 2"])
def test_a_column_without_a_value_yet_has_the_type_that_the_condition_needs(sql):
    rows = [{"note": None, "n": None, "width": 3}]
    assert judged(rows, {}, where=sql)[0] == ["kept"]


def test_string_functions_named_like_row_functions_are_no_aggregates():
    assert judged([{"split": "Len"}], {}, where="substr(split, 1, 1) = 'L' AND reverse(split) = 'neL'")[
        0
    ] == ["kept"]
    assert judged([{"split": "Len"}], {}, where="split IN ('Len', 'Agg')")[0] == ["kept"]
