"""SimLex-999: its table in both forms, and correlations against scipy and loops."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from tiny_models import tiny
from typer.testing import CliRunner

from vlcli.cli import app
from vlcli.errors import InputError, UsageError
from vlcli.evaluation.simlex import read_pairs, similarities, simlex
from vlcli.models.checkpoint import save_checkpoint

# Header and first line as Hill et al. publish them; the others are made up.
HEADER = "word1\tword2\tPOS\tSimLex999\tconc(w1)\tconc(w2)\tconcQ\tAssoc(USF)\tSimAssoc333\tSD(SimLex)"
LINES = [
    "old\tnew\tA\t1.58\t2.72\t2.81\t2\t7.25\t1\t0.41",
    "cup\tmug\tN\t9.1\t4.9\t4.9\t4\t0.1\t0\t1.0",
    "run\tsit\tV\t2.1\t4.0\t4.0\t3\t1.3\t1\t1.0",
    "红色\t绿色\tA\t5.0\t2.0\t2.0\t1\t1.3\t1\t1.0",
    "sea\tred\tN\t2.1\t4.0\t4.0\t4\t1.3\t0\t1.0",
]


@pytest.fixture
def table(tmp_path):
    file = tmp_path / "SimLex-999.txt"
    file.write_text("\n".join([HEADER, *LINES]) + "\n", encoding="utf-8")
    return file


def test_both_forms_of_the_table(table, tmp_path):
    pairs = read_pairs(table)
    assert pairs.words[0] == ("old", "new")
    assert pairs.scores.tolist() == [1.58, 9.1, 2.1, 5.0, 2.1]
    assert {name: rows.tolist() for name, rows in pairs.subsets.items()} == {
        "all": [0, 1, 2, 3, 4], "adjectives": [0, 3], "nouns": [1, 4], "verbs": [2],
        "conc-q1": [3], "conc-q2": [0], "conc-q3": [2], "conc-q4": [1, 4], "hard": [0, 2, 3],
    }  # fmt: skip
    three = tmp_path / "simlex999.txt"
    three.write_text("# comment\nold\tnew\t1.58\ncup\tmug\t9.1\n")
    assert read_pairs(three).scores.tolist() == [1.58, 9.1]
    assert list(read_pairs(three).subsets) == ["all"]
    for text, said in (
        ("a\tb\n", r":1: 2 columns, not 3"),
        ("a\tb\tmuch\n", "'much' is no score"),
        ("", "no word"),
    ):
        three.write_text(text)
        with pytest.raises(InputError, match=said):
            read_pairs(three)
    with pytest.raises(UsageError, match="no such file"):
        read_pairs(tmp_path / "gone.txt")


@torch.no_grad()
def literal(model, one, other, features):
    ids, mask = model.tokenize([one, other])
    if features == "pre":
        a, b = (model.text_state(ids[k : k + 1], mask[k : k + 1])[0] for k in (0, 1))
        return float(a @ b / a.norm() / b.norm())
    texts = model.encode_text(ids, mask)
    if texts.pooled is not None:
        return float(texts.pooled[0] @ texts.pooled[1])
    used = texts.content_mask if model.config.t2i_special_tokens == "exclude" else texts.mask
    sides = [[token for token, real in zip(texts.tokens[k], used[k], strict=True) if real] for k in (0, 1)]
    way = [np.mean([max(float(token @ near) for near in sides[1 - k]) for token in sides[k]]) for k in (0, 1)]
    return sum(way) / 2


@pytest.mark.parametrize("features", ["pre", "post"])
@pytest.mark.parametrize("kind", ["global", "tokenwise"])
def test_similarities_are_the_loop_over_pairs(kind, features, table):
    model, pairs = tiny(kind), read_pairs(table)
    found = similarities(model, pairs.words, features=features, batch_size=3)
    assert found == pytest.approx([literal(model, *pair, features) for pair in pairs.words], abs=1e-5)
    result = simlex(model, pairs, features=features, bootstrap=30)
    for name, rows in pairs.subsets.items():
        if len(rows) > 2:
            want = spearmanr(found[rows], pairs.scores[rows]).statistic
            assert result["spearman"][name] == pytest.approx(100 * want, abs=1e-3)
            low, high = result["ci95"][name]
            assert low <= high
    assert (result["n"], result["pairs"]["hard"]) == (5, 3)


def test_the_command(table, tmp_path, monkeypatch):
    save_checkpoint(tiny("global"), tmp_path / "model", recipe={}, lineage={})
    monkeypatch.chdir(tmp_path)
    line = [
        "zeroshot",
        "model",
        "--task",
        "simlex",
        "--data",
        table.name,
        "--device",
        "cpu",
        "--bootstrap",
        "20",
    ]
    shown = CliRunner().invoke(app, line)
    assert shown.exit_code == 0, shown.output
    assert "Spearman × 100" in shown.stdout
    assert "pre-projection" in " ".join(shown.stdout.split())
    result = json.loads(CliRunner().invoke(app, [*line, "--json"]).stdout)
    assert (result["task"], result["lang"], result["features"], result["n"]) == ("simlex", "en", "pre", 5)
