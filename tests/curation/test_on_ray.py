"""The same files whether one process writes them, a job array, or tasks of Ray Data."""

from __future__ import annotations

import json

import pytest
import ray
from filter_cases import RULES, corpus

from vlcli.curation.ends import Source, Target
from vlcli.curation.on_ray import filter_on_ray
from vlcli.curation.parts import filter_part
from vlcli.curation.plan import resolve
from vlcli.errors import InputError
from vlcli.records.part import Part


@pytest.fixture(scope="module", autouse=True)
def cluster():
    yield
    ray.shutdown()


def tree(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_the_files_are_those_of_one_process_and_a_failed_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # relative names hold in the tasks too
    corpus(tmp_path, rows=1200, bad=(500,))
    inputs = ["a/a.jsonl", "b/b.jsonl", "c.parquet"]
    plan = resolve(None, RULES)
    kept = Target("kept", rejects=tmp_path / "kept.rejects")
    with pytest.raises(InputError, match=r"^b/b\.jsonl:101: not JSON"):
        filter_on_ray(plan, Source(inputs), kept)
    report = filter_on_ray(plan, Source(inputs), kept, max_bad="1")
    alone = Target("alone", rejects=tmp_path / "alone.rejects")
    assert filter_part(plan, Source(inputs), alone, Part(), max_bad="1")["rules"] == report["rules"]
    assert tree(tmp_path / "kept") == tree(tmp_path / "alone")
    assert tree(tmp_path / "kept.rejects") == tree(tmp_path / "alone.rejects")
    run = json.loads((tmp_path / "kept" / "_vlcli" / "counts" / "_vlcli" / "run.json").read_text())
    assert run["parts"] == len(run["units"]) == 4
