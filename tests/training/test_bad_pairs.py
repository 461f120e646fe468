"""A pair whose image cannot be had is left out of its batch, told once, and counted; the others are as they were."""

from __future__ import annotations

import json

import pytest
import torch
from training_cases import CORPUS, RENAMES, Silent, recipe

from vlcli.errors import InputError
from vlcli.models.dual import DualEncoder
from vlcli.shards.pair_table import Damaged
from vlcli.shards.pairs import load_pairs
from vlcli.training.bad_pairs import BadPairs
from vlcli.training.features import FeatureStore
from vlcli.training.loader import Loader
from vlcli.training.pretraining import Pretraining

BAD = (3, 17, 40)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """48 pairs as files."""
    folder = tmp_path_factory.mktemp("whole")
    source = load_pairs([str(CORPUS)], renames=RENAMES, head=48)
    with open(folder / "rows.jsonl", "w") as rows:
        for i in range(48):
            (folder / f"{i}.png").write_bytes(source.image_bytes(i))
            row = {"id": f"p{i}", "image": f"{i}.png", "image_id": f"i{i}", "text": source.texts[i]}
            rows.write(json.dumps(row) + "\n")
    return folder


@pytest.fixture
def broken(whole, tmp_path):
    """The same, and three of them damaged: cut, no image, gone."""
    for file in whole.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "3.png").write_bytes((whole / "3.png").read_bytes()[:200])
    (tmp_path / "17.png").write_bytes(b"<html>")
    table = load_pairs([str(tmp_path / "rows.jsonl")])
    (tmp_path / "40.png").unlink()
    return table


def loader(table, tmp_path, *overrides, **options):
    torch.manual_seed(0)
    resolved = recipe(tmp_path, "data.batch_size=16", "data.workers=0", *overrides)
    return Loader(table, DualEncoder(resolved.model), resolved.data, seed=0, **options)


def test_left_out_by_the_process_that_has_it_and_all_else_as_before(whole, broken, tmp_path):
    warnings = []
    good = list(loader(load_pairs([str(whole / "rows.jsonl")]), tmp_path).batches(0, 6))
    found = list(loader(broken, tmp_path, max_bad="3", warn=warnings.append).batches(0, 6))
    for a, b in zip(good, found, strict=True):
        kept = [k for k, name in enumerate(a.pair_ids) if int(name[1:]) not in BAD]
        assert b.pair_ids == [a.pair_ids[k] for k in kept]
        assert b.local == slice(0, len(kept))
        for name in ("pixels", "ids", "mask", "keys"):
            assert torch.equal(getattr(b, name), getattr(a, name)[kept])
        assert torch.equal(b.codes, a.codes[:, kept])
    assert sum(len(b.pair_ids) for b in found) == 2 * 45
    assert sorted(text.split(":")[0] for text in warnings) == ["image of p17", "image of p3", "image of p40"]
    assert any("not an image" in text for text in warnings)
    assert warnings[2].endswith("left out (3 bad; --max-bad is 3)")


def test_one_too_many_stops_the_run(broken, tmp_path):
    with pytest.raises(InputError, match=r"image of p\d+: .*\(3 bad; --max-bad is 2\)"):
        list(loader(broken, tmp_path, max_bad="2").batches(0, 3))
    with pytest.raises(InputError, match=r"image of p\d+: (?!.*--max-bad)"):
        list(loader(broken, tmp_path).batches(0, 3))
    with pytest.raises(InputError, match="--max-bad is 5%"):  # 2 of 48
        list(loader(broken, tmp_path, max_bad="5%").batches(0, 3))
    list(loader(broken, tmp_path, max_bad="6.25%").batches(0, 3))  # 3 of 48


def test_features_are_extracted_around_it(whole, broken, tmp_path):
    torch.manual_seed(0)
    model = DualEncoder(recipe(tmp_path).model).eval()
    good = load_pairs([str(whole / "rows.jsonl")])
    told: dict[int, str] = {}
    store = FeatureStore(model, tmp_path / "store", precision="fp32")
    rows = store.add(broken, bad=told.__setitem__)
    assert sorted(told) == list(BAD)
    assert [i for i, row in enumerate(rows) if row < 0] == list(BAD)
    other = FeatureStore(model, tmp_path / "other", precision="fp32")
    want = other.take(other.add(good))
    kept = [i for i in range(48) if i not in BAD]
    torch.testing.assert_close(store.take(rows[kept]).pooled, want.pooled[kept], rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match=r"image of p3: not an image .damaged webp"):
        store.add(broken)
    again: dict[int, str] = {}
    assert store.add(broken, bad=again.__setitem__).tolist() == rows.tolist()
    assert again == told


@pytest.mark.parametrize("cache", ["cache", "off"])
def test_a_run_goes_on_without_it_and_remembers(broken, tmp_path, cache):
    settings = ["data.workers=0", "data.batch_size=16", "schedule.epochs=2", "train.save_every=3"]
    settings.append(f"data.cache={tmp_path / cache if cache == 'cache' else 'off'}")

    def train(out, **options):
        reporter = Silent()
        run = Pretraining(recipe(tmp_path, *settings), broken, out, reporter, device="cpu", **options)
        run.run()
        return run, reporter

    run, reporter = train(tmp_path / "run", max_bad="3")
    assert len(reporter.warnings) == 3
    assert run.loader.bad.count == 3
    assert run.state_dict() == {"bad": run.loader.bad.seen}
    with pytest.raises(InputError, match="--max-bad is 2"):
        train(tmp_path / "other", max_bad="2")


def test_told_once_and_carried_over():
    told = []
    bad = BadPairs("5", 100, told.append)
    bad.add_shards([Damaged("x.tar", 2, "x.tar: cut")])
    bad.add([("a", "gone"), ("a", "gone"), ("b", "cut")])
    assert told == [
        "x.tar: cut; left out (2 bad; --max-bad is 5)",
        "image of a: gone; left out (3 bad; --max-bad is 5)",
        "image of b: cut; left out (4 bad; --max-bad is 5)",
    ]
    later = BadPairs("5", 100, told.append)
    later.load_state_dict(bad.state_dict())
    later.add([("b", "cut")])
    assert (later.count, len(told)) == (2, 3)
    with pytest.raises(InputError, match="image of c: x"):
        BadPairs("0", 100, told.append).add([("c", "x")])


def test_a_batch_without_one_good_picture_stops_the_run(broken, tmp_path):
    load = loader(broken, tmp_path, max_bad="48")
    batch = next(load.batches(0, 1))
    places = range(len(batch.pair_ids))
    with pytest.raises(InputError, match=f"not one of the {len(places)} images"):
        load._without(batch, dict.fromkeys(places, "gone"))
