"""Selection by click-through rate against a sort, and its bounds."""

from __future__ import annotations

import json
import random
from collections import defaultdict

import numpy as np
import polars as pl
import pytest

from vlcli.curation.bounds import Bound
from vlcli.curation.click_through import TopRates
from vlcli.curation.ends import Source, Target
from vlcli.curation.filter import filter_pairs
from vlcli.curation.plan import resolve
from vlcli.errors import UsageError
from vlcli.records.batch import BOOKKEEPING, COLUMNS, Batch


def kept(tmp_path, rows, **rules):
    plan = resolve(None, {name.replace("_", "-"): value for name, value in rules.items() if name != "where"})
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"n": n, **row}) + "\n" for n, row in enumerate(rows)))
    filter_pairs(plan, Source([str(source)]), Target(str(out), force=True))
    return [json.loads(line)["n"] for line in out.read_text(encoding="utf-8").splitlines()]


def test_a_rate_at_the_bound_is_kept_and_one_that_is_not_known_goes(tmp_path):
    rows = [
        {"ctr": 0.05},
        {"ctr": 0.049},
        {"ctr": None},
        {},
        {"clicks": 5, "impressions": 100},
        {"clicks": 4, "impressions": 100},
        {"clicks": 0, "impressions": 0},
        {"ctr": 0.1, "clicks": 0, "impressions": 9},
    ]
    assert kept(tmp_path, rows, min_ctr="0.05") == [0, 4, 7]
    assert kept(tmp_path, rows, min_ctr=">0.05") == [7]
    with pytest.raises(UsageError, match="no row has a column 'ctr'"):
        kept(tmp_path, [{"text": "狗"}], min_ctr="0")


def test_the_best_of_each_query_are_kept_in_input_order(tmp_path):
    rates = [0.1, 0.3, None, 0.3, 0.2, 0.3]
    rows = [{"query": "狗", "ctr": rate} for rate in rates] + [{"query": "猫"}, {"ctr": 0.0}, {"query": ""}]
    assert kept(tmp_path, rows, ctr_top_k="2") == [1, 3, 6, 7, 8]
    assert kept(tmp_path, rows, ctr_top_k="<6") == [0, 1, 3, 4, 5, 6, 7, 8]
    assert kept(tmp_path, rows, ctr_top_k="2", max_per_query="3") == [
        0,
        1,
        6,
        7,
        8,
    ]  # of what the cap lets pass
    assert kept(tmp_path, [{"ctr": 1}, {}], ctr_top_k="1") == [0, 1]  # there is no query
    assert kept(tmp_path, [], ctr_top_k="1") == []
    with pytest.raises(UsageError, match="--ctr-top-k: no row has a column 'ctr'"):
        kept(tmp_path, [{"query": "狗"}], ctr_top_k="2")


@pytest.mark.parametrize("sizes", [{}, {"buckets": 2, "flush_rows": 1}, {"buckets": 7, "flush_rows": 50}])
def test_ranks_equal_a_sort(sizes):
    chance = random.Random(3)
    rows = [
        (
            chance.choice([None, "", *"甲乙丙丁"]),
            chance.choice([None, 0.0, 0.5, chance.random()]),
            chance.random() < 0.8,
        )
        for _ in range(1000)
    ]
    by_query = defaultdict(list)
    for n, (query, rate, stands) in enumerate(rows):
        if query and stands:
            by_query[query].append((rate is None, -(rate or 0), n))
    best = {n for found in by_query.values() for *_, n in sorted(found)[:20]}
    batches = []
    for start in range(0, 1000, 130):
        part = rows[start : start + 130]
        frame = pl.DataFrame({"query": [q for q, _, _ in part]}, schema={"query": pl.String()})
        missing = {k: t for k, t in (COLUMNS | BOOKKEEPING).items() if k != "query"}
        frame = frame.with_columns(pl.lit(None, t).alias(k) for k, t in missing.items())
        frame = frame.with_columns(line=pl.int_range(start, start + len(part), eager=True))
        batches.append(
            (Batch(frame, [{"ctr": r} for _, r, _ in part], "x", True), np.array([s for *_, s in part]))
        )
    with TopRates(Bound("<=", 20), **sizes) as survey:
        for batch, standing in batches:
            survey.add(batch, pl.DataFrame(), standing)
        survey.finish()
        found = [value for batch, _ in batches for value in survey.look_up(batch, pl.DataFrame())]
    assert [f for f, (q, _, s) in zip(found, rows, strict=True) if q and s] == [
        n in best for n, (q, _, s) in enumerate(rows) if q and s
    ]
    assert all(f for f, (q, _, s) in zip(found, rows, strict=True) if not (q and s))
