"""`vlcli filter` with selections as it is typed: the real corpus, files and pipes, reports that add up."""

from __future__ import annotations

import json
import random
import unicodedata
from collections import Counter, defaultdict
from hashlib import blake2b

import polars as pl
import pytest
from test_filter_command import MAP, RAW, ROOT, jsonl, lines, vlcli


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def check(report: dict) -> None:
    """in = kept + held out + dropped + bad, in rows and in texts, and every dropped row is charged to one line."""
    for counts in (report["rows"], report["texts"]):
        assert counts["in"] == sum(counts.values()) - counts["in"]
    assert report["rows"]["dropped"] == sum(rule["dropped"] for rule in report["rules"])
    kept = None
    for rule in report["rules"]:
        assert rule["seen"] == rule["kept"] + rule["dropped"] + rule.get("held_out", 0)
        assert kept is None or rule["seen"] == kept
        kept = rule["kept"]
    assert kept == report["rows"]["kept"]


def texts_of(row: dict) -> set[str]:
    texts = row.get("text") or []
    return {unicodedata.normalize("NFC", t).strip() for t in ([texts] if isinstance(texts, str) else texts)}


def test_a_test_set_of_the_real_corpus_shares_nothing_with_what_is_left(tmp_path):
    rules = [RAW, MAP, "--preset=wukong", "--min-side=64"]
    passed = {row["id"]: row for row in lines(vlcli(*rules).stdout)}
    options = ["--hold-out=300", "--hold-out-to", tmp_path / "test.jsonl", "--seed=5"]
    options += [
        "--report",
        tmp_path / "r.json",
        "--rejects",
        tmp_path / "no.jsonl",
        "-o",
        tmp_path / "o.jsonl",
    ]
    out = vlcli(*rules, *options)
    report = json.loads((tmp_path / "r.json").read_bytes())
    check(report)
    held = lines((tmp_path / "test.jsonl").read_bytes())
    kept = lines((tmp_path / "o.jsonl").read_bytes())
    gone = [row for row in lines((tmp_path / "no.jsonl").read_bytes()) if row["rule"] == "hold-out"]
    assert len(held) == 300 == report["rows"]["held_out"]
    draws = {name: blake2b(f"hold-out:5:{name}".encode(), digest_size=8).digest() for name in passed}
    assert {row["id"] for row in held} == set(sorted(passed, key=draws.get)[:300])
    images, texts = {row["image_id"] for row in held}, set().union(*map(texts_of, held))
    assert not any(row["image_id"] in images or texts_of(row) & texts for row in kept)
    dropped = {row["row"]["id"] for row in gone}
    assert all(passed[name]["image_id"] in images or texts_of(passed[name]) & texts for name in dropped)
    assert {*(row["id"] for row in (*held, *kept)), *dropped} == passed.keys()
    assert len(held) + len(kept) + len(dropped) == len(passed)
    assert f"held out 300, dropped {report['rows']['dropped']:,}" in out.stderr
    assert report["selections"]["hold-out"]["seed"] == 5
    assert all(row["reason"] == "shares an image or a text with a row held out" for row in gone)


def test_the_rows_held_out_keep_their_split_and_go_to_a_file_of_another_format(tmp_path):
    rows = [{"id": str(i), "image": f"{i}.jpg", "text": f"t{i}", "split": "old"} for i in range(45)]
    held_out = ["--hold-out=5", "--hold-out-to", tmp_path / "t.parquet"]
    out = vlcli(*held_out, "--split=3:1", stdin=jsonl(rows))
    test = pl.read_parquet(tmp_path / "t.parquet")
    kept = lines(out.stdout)
    assert sorted([*test["id"], *(row["id"] for row in kept)], key=int) == [row["id"] for row in rows]
    assert set(test["split"]) == {"old"}
    assert Counter(row["split"] for row in kept) == {"train": 30, "val": 10}
    assert "40 rows had another split, which is replaced" in out.stderr


def test_a_split_of_the_real_corpus_keeps_images_together_and_groups_in_proportion(tmp_path):
    out = vlcli(RAW, MAP, "--split=8:1:1", "--stratify=group", "--report", tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_bytes())
    check(report)
    sides, groups = defaultdict(set), defaultdict(Counter)
    for row in lines(out.stdout):
        sides[row["image_id"]].add(row["split"])
        groups[row["group"]][row["split"]] += 1
    assert all(len(names) == 1 for names in sides.values())
    for counts in groups.values():
        total = sum(counts.values())
        for name, weight in (("train", 8), ("val", 1), ("test", 1)):
            assert abs(counts[name] - total * weight / 10) < 1
    whole = sum(groups.values(), Counter())
    assert whole == report["selections"]["split"]["sides"] == {"train": 7966, "val": 996, "test": 996}
    assert {line["value"]: line["sides"] for line in report["selections"]["split"]["by_value"]} == groups


@pytest.mark.parametrize(
    "options",
    [
        ["--sample=70"],
        ["--sample=20%"],
        ["--sample=9", "--per-key=lang"],
        ["--mix=lang:zh=2,en=1"],
        ["--split=8:1:1", "--stratify=lang"],
        ["--max-text-freq=4", "--hold-out=11", "--hold-out-to", "HELD", "--mix=lang", "--split=a=1,b=1"],
    ],
    ids=str,
)
def test_order_files_and_pipes_make_no_difference(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chance = random.Random(0)
    rows = []
    for i in range(400):
        image, text, lang = chance.randrange(300), chance.randrange(150), chance.choice(["zh", "zh", "en"])
        rows.append({"id": str(i), "image": f"{image}.jpg", "text": f"t{text}", "lang": lang})

    def run(*inputs: str, stdin: bytes = b"", name: str) -> tuple[dict, set]:
        here = [option.replace("HELD", f"{name}.held") for option in options]
        out = vlcli(*inputs, *here, "--report", f"{name}.json", "-q", stdin=stdin).stdout
        check(json.loads((tmp_path / f"{name}.json").read_bytes()))
        held = tmp_path / f"{name}.held"
        test = {row["id"] for row in lines(held.read_bytes())} if held.exists() else set()
        return {row["id"]: row.get("split") for row in lines(out)}, test

    expected = run(stdin=jsonl(rows), name="pipe")
    assert expected[0]
    shuffled = chance.sample(rows, len(rows))
    for number, part in enumerate((shuffled[:130], shuffled[130:131], shuffled[131:])):
        (tmp_path / f"{number}.jsonl").write_bytes(jsonl(part))
    pl.DataFrame(shuffled).write_parquet(tmp_path / "all.parquet")
    assert run("0.jsonl", "1.jsonl", "2.jsonl", name="files") == expected
    assert run("all.parquet", name="parquet") == expected


def test_what_needs_no_first_pass_costs_none(tmp_path, monkeypatch):
    from vlcli.curation import filter as module

    monkeypatch.setattr(module, "_look_ahead", None)  # calling it would be an error
    rows = jsonl([{"id": str(i), "image": f"{i // 3}.jpg", "text": "t"} for i in range(30)])
    assert [r["id"] for r in lines(vlcli("--first=4", stdin=rows).stdout)] == ["0", "1", "2", "3"]
    assert len(lines(vlcli("--first-images=4", stdin=rows).stdout)) == 12
    assert 0 < len(lines(vlcli("--sample=50%", stdin=rows).stdout)) < 30


def test_the_click_through_rule_is_asked_twice(tmp_path):
    rows = [{"id": str(i), "text": f"t{i}", "query": f"q{i % 2}", "ctr": i / 100} for i in range(20)]
    out = vlcli("--ctr-top-k=5", "--sample=100", stdin=jsonl(rows))
    assert [row["id"] for row in lines(out.stdout)] == [str(i) for i in range(10, 20)]
    assert "there are fewer than the 100 asked for" in out.stderr


def test_bad_rows_are_told_once(tmp_path):
    rows = jsonl([{"id": str(i), "text": f"t{i}", "width": 9, "height": 9} for i in range(5)]) + b"[]\n"
    rows += jsonl([{"id": "no size", "text": "t", "image": "/nowhere.jpg"}])
    options = [
        "--max-bad=2",
        "--min-side=1",
        "--sample=2",
        "--rejects",
        tmp_path / "no",
        "--report",
        tmp_path / "r",
    ]
    vlcli(*options, stdin=rows)
    report = json.loads((tmp_path / "r").read_bytes())
    assert report["rows"] == {"in": 7, "kept": 2, "dropped": 3, "bad": 2}
    assert Counter(row["rule"] for row in lines((tmp_path / "no").read_bytes())) == {"sample": 3, "bad": 2}
    assert not list(tmp_path.glob(".*"))


def test_texts_are_compared_as_the_rules_left_them(tmp_path):
    """Two captions that mask to one are one text, and a field that fell does not count."""
    rows = [{"id": str(i), "text": f"{name}在公园里跑步"} for i, name in enumerate(["王小明", "李大伟"])]
    rows += [{"id": "other", "text": "一只狗在公园里"}]
    counts = []
    for mask in ("--mask-names", "--no-mask-names"):
        for seed in range(40):
            options = [mask, "--hold-out=1", "--hold-out-to", tmp_path / "t", "--force", "--seed", seed]
            out = lines(vlcli(*options, stdin=jsonl(rows)).stdout)
            held = lines((tmp_path / "t").read_bytes())[0]["id"]
            if held != "other":
                counts.append((mask, len(out)))
                break
    assert counts == [("--mask-names", 1), ("--no-mask-names", 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hold-out=3"], "--hold-out N and --hold-out-to FILE go together"),
        (["--hold-out-to=x"], "--hold-out N and --hold-out-to FILE go together"),
        (["--hold-out=3", "--hold-out-to=x", "-o", "x"], "-o and --hold-out-to name one file"),
        (["--hold-out=3", "--hold-out-to=-"], "--hold-out-to -: "),
        (["--per-key=lang"], "--per-key lang says nothing alone"),
        (["--stratify=lang"], "--stratify lang says nothing alone"),
        (["--sample=0"], "--sample '0' is neither"),
        (["--split=8"], "--split '8'"),
        (["--mix=:"], "--mix ':'"),
        (["--sample=2", "--per-key=lang"], "--per-key lang: no row has a value in 'lang'"),
        (["--hold-out=3", "--hold-out-to=x"], "--hold-out 3: only 2 rows pass"),
    ],
)
def test_what_cannot_be_is_an_exit_2_and_leaves_nothing(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = vlcli(*options, "--rejects=no", stdin=jsonl([{"text": "a"}, {"text": "b"}]), code=2)
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_plan_names_selections_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_bytes(jsonl([{"text": "a"}]))
    options = [
        "--hold-out=3",
        "--hold-out-to=t.jsonl",
        "--mix=lang:zh=1,en=0.5",
        "--sample=9",
        "--split=8:1:1",
    ]
    shown = vlcli("rows.jsonl", *options, "--dry-run").stdout.decode()
    for line in (["hold-out", "3"], ["mix", "lang:zh=1,en=0.5"], ["sample", "9"], ["held out", "t.jsonl"]):
        assert any(all(cell in row for cell in line) for row in shown.splitlines())
    assert "train=8,val=1,test=1" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_nothing_in_gives_nothing_out(tmp_path):
    for options in (
        ["--sample=5"],
        ["--sample=5", "--per-key=a"],
        ["--mix=a"],
        ["--split=8:1:1"],
        ["--first=1%"],
    ):
        assert vlcli(*options).stdout == b""
