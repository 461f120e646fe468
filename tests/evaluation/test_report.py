"""Reports of results: the numbers of each line where they belong, in every form, and read by other tools."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import types
from argparse import Namespace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from vlcli.cli import app
from vlcli.errors import InputError, UsageError
from vlcli.evaluation.report.foreign import write_foreign
from vlcli.evaluation.report.page import html
from vlcli.evaluation.report.table import Number, Row, Table
from vlcli.evaluation.report.tables import tables
from vlcli.evaluation.report.text import as_csv, markdown
from vlcli.evaluation.results_file import average_line, average_settings, key_of


def line(command, *, run="runs/a", checkpoint="a" * 16, data="val.jsonl", lang="zh", seed=None, **result):
    settings = {"command": command, "checkpoint": checkpoint, "data": data, "lang": lang}
    settings |= {"average": result.pop("of")} if "of" in result else {}
    recipe = None if seed is None else {"name": "emoji", "seed": seed, "same": "5a5a"}
    head = {"checkpoint": checkpoint, "data": data, "split": "val", "split_hash": data.ljust(64, "0")}
    head |= {"lang": lang, "similarity": "global", "prompts": "none", "run": run, "recipe": recipe}
    return {"key": key_of(settings), "command": command, **head, "settings": settings, **result}


def recalls(base, *, one_way=False, **more):
    side = {"R@1": base, "R@5": base + 10, "R@10": base + 20}
    bounds = {"R@1": [base - 2, base + 2], "R@5": [base + 8, base + 12], "R@10": [base + 18, base + 22]}
    ci95 = {"t2i": bounds, "MR": [base + 9, base + 11]} | ({} if one_way else {"i2t": bounds})
    numbers = {"i2t": None if one_way else side, "t2i": side, "MR": base + 10, "ci95": ci95}
    return line("retrieve", images=100, texts=120, **numbers, **more)


def accuracy(top1, **more):
    numbers = {
        "top1": top1,
        "top5": top1 + 20,
        "mean_per_class": top1 - 1,
        "ci95": {"top1": [top1 - 3, top1 + 3]},
    }
    return line("zeroshot", n=50, classes=7, labels="names.txt", ensemble="similarity", **numbers, **more)


def shown(table):
    return {row.model: [None if one is None else str(one) for one in row.numbers] for row in table.rows}


def test_naming_classes_has_a_column_a_set_and_the_mean_of_whole_rows():
    lines = [
        accuracy(30.0),
        accuracy(41.0, data="imagenet.jsonl"),
        accuracy(35.0, run="runs/b/best", checkpoint="b" * 16),
    ]
    found = tables(lines)
    assert [table.title for table in found] == [
        f"Zero-shot {x}, %" for x in ("top-1", "top-5", "mean per class")
    ]
    assert found[0].columns == ["val", "imagenet val", "mean"]
    assert found[0].note == "Each of zh · names.txt · 7 classes, 50 images."
    assert shown(found[0]) == {
        "a": ["30.0 [27.0, 33.0]", "41.0 [38.0, 44.0]", "35.5"],
        "b": ["35.0 [32.0, 38.0]", None, None],
    }
    assert [found[0].is_best(row, 0) for row in found[0].rows] == [False, True]
    assert not any(found[0].is_best(row, 1) for row in found[0].rows)  # the only one is not the best


def test_a_single_set_has_a_column_a_number():
    (table,) = tables([accuracy(30.0), accuracy(35.0, run="runs/b", checkpoint="b" * 16)])
    assert table.title == "Zero-shot, val · zh · names.txt · 7 classes: 50 images, %"
    assert table.columns == ["top-1", "top-5", "mean per class"]
    assert shown(table) == {
        "a": ["30.0 [27.0, 33.0]", "50.0", "29.0"],
        "b": ["35.0 [32.0, 38.0]", "55.0", "34.0"],
    }


def test_sets_are_called_by_as_much_as_tells_them_apart():
    both = [accuracy(30.0), accuracy(31.0, lang="en")]
    more = accuracy(32.0) | {"labels": "other.txt", "n": 60, "key": "x"}
    assert tables(both)[0].columns == ["val · zh", "val · en", "mean"]
    found = tables([*both, more])[0]
    assert found.columns == ["val · zh · names.txt", "val · en · names.txt", "val · zh · other.txt", "mean"]
    assert found.note.startswith("val · zh · names.txt: 7 classes, 50 images; ")
    alike = recalls(20.0) | {"split_hash": "another"}  # of other rows, but no other classes
    assert tables([*both, alike])[0].columns == ["val · zh", "val · en", "mean"]


def test_retrieval_has_a_table_a_set_and_the_mean_recalls_side_by_side():
    found = tables([recalls(20.0), recalls(30.0, data="muge.jsonl", one_way=True)])
    assert [len(table.columns) for table in found] == [7, 4, 3]
    assert found[1].columns == ["T→I R@1", "T→I R@5", "T→I R@10", "MR"]
    assert shown(found[0])["a"][0] == "20.0 [18.0, 22.0]"
    assert shown(found[2]) == {"a": ["30.0 [29.0, 31.0]", "40.0 [39.0, 41.0]", "35.0"]}
    assert "100 images, 120 texts" in found[0].title


def test_seeds_of_a_recipe_are_a_row_with_their_deviation():
    values = (20.0, 23.0, 26.0)
    lines = [
        recalls(value, run=f"runs/s{seed}", checkpoint=str(seed) * 16, seed=seed)
        for seed, value in enumerate(values)
    ]
    (table,) = tables(lines)
    assert list(shown(table)) == ["emoji, 3 seeds"]
    assert shown(table)["emoji, 3 seeds"][0] == "23.0 ± 3.0"
    assert table.rows[0].said[0].split() == ["0" * 16, "1" * 16, "2" * 16]
    again = recalls(29.0, run="runs/late", checkpoint="9" * 16, seed=2)  # one seed twice: no repetitions
    assert len(tables([*lines, again])[0].rows) == 4
    other = recalls(29.0, data="other.jsonl", run="runs/s2", checkpoint="2" * 16, seed=2)
    assert len(tables([*lines[:2], other])[0].rows) == 1


def test_languages_stand_side_by_side():
    parts = [recalls(base, lang=lang) for lang, base in (("en", 20.0), ("ar", 10.0))]
    settings = {part["lang"]: part["settings"] for part in parts}
    whole = {"i2t": None, "t2i": None, "MR": 25.0, "ci95": {"MR": [24.0, 26.0]}}
    head = {"similarity": "global", "checkpoint": "a" * 16}
    average = average_line({**head, "langs": parts, "average": whole})
    all_of = average_settings({lang: {**one, "similarity": "global"} for lang, one in settings.items()})
    all_of["average"] = {part["lang"]: part["key"] for part in parts}
    average |= {"key": "k", "command": "retrieve", "settings": all_of, "run": "runs/a"}
    found = tables([*parts, average])[-1]
    assert found.title == "Languages, mean recall, val, %"
    assert found.columns == ["en", "ar", "average"]
    assert shown(found)["a"] == ["30.0 [29.0, 31.0]", "20.0 [19.0, 21.0]", "25.0 [24.0, 26.0]"]


def test_prompts_of_several_languages_are_one_row():
    both = [accuracy(30.0 + k, lang=tag, prompts=f"parallel-20.{tag}") for k, tag in enumerate(("zh", "en"))]
    [row] = tables(both)[0].rows
    assert row.said[2] == "parallel-20.{lang}"
    assert all(number is not None for number in row.numbers)


def test_models_and_sets_of_one_name_are_told_apart():
    lines = [recalls(20.0), recalls(21.0, checkpoint="b" * 16)]
    assert list(shown(tables(lines)[0])) == ["a aaaaaaaa", "a bbbbbbbb"]
    twin = recalls(22.0) | {"split_hash": "123456789", "key": "x"}
    assert tables([lines[0], twin])[1].title.startswith("Retrieval, val 123456 · zh")


class Texts(HTMLParser):
    """What a page says, and whether it asks for anything from elsewhere."""

    def __init__(self, page):
        super().__init__()
        self.found, self.asked = [], []
        self.feed(page)

    def handle_data(self, data):
        self.found.append(data)

    def handle_starttag(self, tag, attrs):
        self.asked += [value for name, value in attrs if name in ("src", "href")]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1))
def test_any_name_survives_in_a_page_and_in_a_table(name):
    table = Table(name, [name], [Row(name, ("c", "global", name), [Number((12.34,), (10.0, 15.0))])])
    page = Texts(html([table], title=name))
    assert page.found.count(name) >= 5
    assert page.asked == []
    rows = [row for row in markdown([table]).splitlines() if row.startswith("| ")]
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows}) == 1


def test_a_page_needs_nothing_from_elsewhere():
    page = html(tables([recalls(20.0), accuracy(30.0)]), title="<Résultats>")
    assert not Texts(page).asked
    assert "http" not in page
    assert "&lt;Résultats&gt;" in page
    assert 'data-value="20.0000">20.0<small>[18.0, 22.0]</small>' in page


def test_every_number_has_a_line_of_csv():
    lines = [recalls(20.0, seed=3), recalls(30.0, data="m.jsonl", one_way=True), accuracy(40.0)]
    rows = list(csv.DictReader(io.StringIO(as_csv(lines))))
    assert len(rows) == 7 + 4 + 3
    assert {row["metric"] for row in rows[:7]} == {
        f"{s}.R@{k}" for s in ("i2t", "t2i") for k in (1, 5, 10)
    } | {"MR"}
    first = rows[0]
    assert (first["value"], first["low"], first["high"], first["seed"], first["n"]) == (
        "20.0",
        "18.0",
        "22.0",
        "3",
        "100",
    )
    assert rows[-1]["low"] == ""


def test_the_builder_of_clip_benchmark_reads_our_files(tmp_path, monkeypatch):
    # which asks at its import for scores of captions, and these for a hundred megabytes of Java
    captioning = "clip_benchmark.metrics.captioning"
    monkeypatch.setitem(sys.modules, captioning, types.ModuleType(captioning))
    from clip_benchmark.cli import main_build

    lines = [recalls(20.0), recalls(30.0, data="muge.jsonl", one_way=True), accuracy(40.0)]
    assert write_foreign(lines, "clip-benchmark", tmp_path / "files") == 3
    main_build(Namespace(files=[str(tmp_path / "files")], output=str(tmp_path / "all.csv")))
    with open(tmp_path / "all.csv", newline="") as file:
        rows = {(row["dataset"], row["task"]): row for row in csv.DictReader(file)}
    assert set(rows) == {
        ("val", "zeroshot_retrieval"),
        ("muge val", "zeroshot_retrieval"),
        ("val", "zeroshot_classification"),
    }
    named, found = rows["val", "zeroshot_classification"], rows["muge val", "zeroshot_retrieval"]
    assert (named["acc1"], named["acc5"], named["mean_per_class_recall"]) == ("0.4", "0.6", "0.39")
    assert (found["image_retrieval_recall@5"], found["text_retrieval_recall@5"]) == ("0.4", "")
    assert (named["model_fullname"], named["language"]) == (f"a {'a' * 16}", "zh")


def test_mteb_has_a_task_for_each_direction(tmp_path):
    assert write_foreign([recalls(20.0), accuracy(40.0)], "mteb", tmp_path) == 3
    found = {one["task_name"]: one for one in (json.loads(file.read_bytes()) for file in tmp_path.iterdir())}
    assert set(found) == {"ValI2TRetrieval", "ValT2IRetrieval", "ValZeroShot"}
    (entry,) = found["ValT2IRetrieval"]["scores"]["val"]
    assert (entry["hit_rate_at_5"], entry["main_score"], entry["languages"]) == (0.3, 0.2, ["zho-Hans"])
    with pytest.raises(UsageError, match="exists"):
        write_foreign([recalls(20.0)], "mteb", tmp_path)


@pytest.fixture
def report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [recalls(20.0), accuracy(40.0)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def report(*arguments):
        result = CliRunner().invoke(app, ["report", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return report


def test_the_command_writes_what_the_name_says(report, tmp_path):
    assert report("results.jsonl").stdout.startswith("## Zero-shot, val · zh · names.txt")
    assert report("results.jsonl", "--to", "csv").stdout.startswith("command,run,checkpoint")
    report("results.jsonl", "-o", "page.html", "--title", "Emoji")
    assert "<title>Emoji</title>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    report("results.jsonl", "-o", "table.csv")
    assert (tmp_path / "table.csv").read_text().startswith("command,")
    report("results.jsonl", "--format", "clip-benchmark", "-o", "files")
    assert len(list((tmp_path / "files").iterdir())) == 2
    with pytest.raises(UsageError, match=r"page\.html exists"):
        report("results.jsonl", "-o", "page.html")
    with pytest.raises(UsageError, match="name a directory, or elevater's archive, with -o"):
        report("results.jsonl", "--format", "mteb")
    with pytest.raises(UsageError, match="does not go with --to"):
        report("results.jsonl", "--format", "mteb", "--to", "csv", "-o", "x")


def test_bad_lines_have_one_line(report, tmp_path):
    whole = (tmp_path / "results.jsonl").read_bytes()
    (tmp_path / "results.jsonl").write_bytes(b"{}\n" + whole)
    with pytest.raises(InputError, match=r"^results\.jsonl:1: not a line of results$"):
        report("results.jsonl")
    (tmp_path / "results.jsonl").write_bytes(whole[:-30])
    assert "its last line was cut short and is left out" in report("results.jsonl").stderr
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(UsageError, match=r"empty\.jsonl: no results in it"):
        report("empty.jsonl")


def test_of_distances_the_less_is_the_best_and_their_net_is_said():
    rows = []
    for k, (kid, score) in enumerate(((0.0137, 37.2), (0.0041, 30.0))):
        head = {
            "command": "score",
            "run": f"{k}.jsonl",
            "checkpoint": f"{k}" * 16,
            "similarity": "–",
            "key": str(k),
        }
        data = {
            "data": "real.jsonl",
            "split": "val",
            "split_hash": "f" * 64,
            "lang": "zh",
            "settings": {"k": k},
        }
        net = {"net": "lite0", "dim": 1280, "hash": "abc"}
        numbers = {
            "kid": kid,
            "kid_sd": 0.002,
            "fid": 100 + 100 * kid,
            "features": net,
            "n": 120,
            "n_real": 130,
        }
        numbers |= {"clip_score": score, "encoder": "d" * 16, "ci95": {"clip_score": [score - 1, score + 1]}}
        rows.append(head | data | numbers)
    (table,) = tables(rows)
    assert table.columns == ["KID × 1000", "FID", "CLIP score"]
    text = markdown([table])
    assert "| 13.7 ± 2.0 | 101.4 | **37.2 [36.2, 38.2]** |" in text
    assert "| **4.1 ± 2.0** | **100.4** | 30.0 [29.0, 31.0] |" in text
    assert text.count("lite0 (abc), 120 of 130 pictures, encoder dddddddddddddddd") == 2


def test_probes_are_no_zero_shot_and_say_their_features():
    probe = accuracy(60.0, data="imagenet.jsonl", protocol="linear-probe", features="pre")
    found = tables([accuracy(30.0), probe])
    assert [table.title.partition(",")[0] for table in found] == ["Zero-shot", "Linear probe"]
    assert shown(found[1])["a"][0] == "60.0 [57.0, 63.0]"
    assert found[1].rows[0].said[2] == "features before the projection"


def test_what_differs_in_a_setting_has_a_row_of_its_own():
    def probe(top1, **more):
        one = accuracy(top1, protocol="knn", features="pre", k=20, **more)
        settings = one["settings"] | {"protocol": "knn", "k": 20, "train": [more["run"] * 9, None]}
        return one | {"settings": settings, "key": key_of(settings), "run": "runs/a"}

    lines = [probe(60.0, run="x"), probe(70.0, run="y")]
    lines.append(lines[0] | {"k": 1, "top1": 50.0, "key": "k1"})
    (table,) = tables(lines)
    assert [(row.said[2], row.numbers[0].mean) for row in table.rows] == [
        ("features before the projection, 20 neighbours", 60.0),
        ("features before the projection, 20 neighbours, with another train yyyyyy", 70.0),
        ("features before the projection, 1 neighbours", 50.0),
    ]


def test_probes_and_classifiers_are_no_zero_shot_elsewhere(tmp_path):
    probe = accuracy(60.0, protocol="linear-probe", features="pre", data="a")
    others = [
        accuracy(61.0, protocol="knn", features="pre", k=1, data="b"),
        accuracy(62.0, lang="none", data="c"),
    ]
    assert write_foreign([probe, *others], "clip-benchmark", tmp_path / "cb") == 1
    (file,) = (tmp_path / "cb").iterdir()
    found = json.loads(file.read_bytes())
    assert (found["task"], found["metrics"]["lp_acc1"]) == ("linear_probe", 0.6)
    assert write_foreign([probe, *others, accuracy(40.0)], "mteb", tmp_path / "mteb") == 1
    assert [table.title.partition(",")[0] for table in tables(others)] == ["Nearest neighbours", "Classifier"]


def test_a_correlation_of_too_few_ratings_is_no_number():
    ratings = {"sts": {"mean": None, "sd": None}, "mean": None}
    one = line("retrieve", images=9, texts=45, i2t=None, t2i=None, MR=2.0, correlation=ratings, ci95={})
    assert shown(tables([one])[-1]) == {"a": [None, None]}


def test_cxc_has_four_directions_and_its_correlations():
    side = {"R@1": 1.0, "R@5": 2.0, "R@10": 3.0}
    ratings = {"sts": {"mean": 70.0, "sd": 0.4}, "sis": {"mean": 80.0, "sd": 0.8}, "mean": 75.0}
    sides = dict.fromkeys(("i2t", "t2i", "t2t", "i2i"), side)
    found = tables(
        [line("retrieve", images=9, texts=45, **sides, MR=2.0, correlation=ratings, ci95={}, data="cxc")]
    )
    assert found[0].columns == [
        *(f"{a} R@{k}" for a in ("I→T", "T→I", "T→T", "I→I") for k in (1, 5, 10)),
        "MR",
    ]
    assert found[1].title.startswith("Correlation with ratings, cxc")
    assert found[1].columns == ["sts", "sis", "mean"]
    assert shown(found[1]) == {"a": ["70.0 ± 0.4", "80.0 ± 0.8", "75.0"]}


def test_a_set_has_the_number_that_it_goes_by():
    several = line("zeroshot", n=5, classes=20, labels="voc", map11=70.0, ci95={}, data="voc2007")
    memes = accuracy(60.0, auc=55.0, data="memes")
    found = {table.title: shown(table) for table in tables([several, memes])}
    assert found["Zero-shot 11-point mAP, %"] == {"a": ["70.0"]}
    assert found["Zero-shot AUC, %"] == {"a": ["55.0"]}
    assert not any("Matching" in title for title in found)
    rows = csv.DictReader(io.StringIO(as_csv([several, memes])))
    assert [row["metric"] for row in rows] == ["map11", "top1", "top5", "mean_per_class", "auc"]


def test_words_and_captions_of_the_same_words_have_tables():
    words = line(
        "zeroshot", task="simlex", features="post", n=9, spearman={"all": 41.0, "hard": 12.0},
        ci95={"all": [30.0, 50.0]}, data="SimLex-999.txt",
    )  # fmt: skip
    scores = {"text": 61.0, "image": 40.0, "group": 33.0, "macro": 60.0, "ci95": {"text": [50.0, 70.0]}}
    captions = line("zeroshot", task="compositional", n=9, data="winoground", **scores)
    found = tables([words, captions])
    assert [table.columns for table in found] == [
        ["all", "hard"],
        ["text score", "image score", "group score", "mean of categories"],
    ]
    assert shown(found[0]) == {"a": ["41.0 [30.0, 50.0]", "12.0"]}
    assert found[0].rows[0].said[2] == "features behind the projection"
    assert shown(found[1]) == {"a": ["61.0 [50.0, 70.0]", "40.0", "33.0", "60.0"]}
    rows = {row["metric"]: row for row in csv.DictReader(io.StringIO(as_csv([words, captions])))}
    assert (rows["spearman.all"]["value"], rows["spearman.all"]["low"]) == ("41.0", "30.0")
    assert rows["group"]["value"] == "33.0"
