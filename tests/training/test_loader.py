"""Order, text choice and sharing between processes depend on (seed, epoch, id) alone."""

import pytest
import torch
from training_cases import pairs, recipe

from vlcli.errors import UsageError
from vlcli.evaluation.embed import decode_row
from vlcli.models.dual import DualEncoder
from vlcli.shards.pair_table import Share
from vlcli.training.loader import Loader, draw_text, generator


@pytest.fixture(scope="module")
def table():
    return pairs()


def loader(table, tmp_path, *overrides, **options):
    resolved = recipe(tmp_path, "data.cache=off", "data.workers=0", *overrides)
    return Loader(table, DualEncoder(resolved.model), resolved.data, seed=0, **options)


def test_any_step_can_be_the_first(table, tmp_path):
    whole = list(loader(table, tmp_path).batches(0, 6))
    late = list(loader(table, tmp_path).batches(4, 6))
    for a, b in zip(whole[4:], late, strict=True):
        assert a.pair_ids == b.pair_ids
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.pixels, b.pixels)


def test_processes_share_the_global_batch_without_overlap(table, tmp_path):
    whole = next(loader(table, tmp_path).batches(0, 1))
    shares = [next(loader(table, tmp_path, rank=r, world=2).batches(0, 1)) for r in (0, 1)]
    assert all(share.pair_ids == whole.pair_ids for share in shares)
    assert all(torch.equal(share.codes, whole.codes) for share in shares)
    assert torch.equal(torch.cat([share.pixels for share in shares]), whole.pixels)
    assert [share.local for share in shares] == [slice(0, 8), slice(8, 16)]


def words(batch):
    """Ids of each text without its padding, which is as long as a process needs."""
    return [ids[mask].tolist() for ids, mask in zip(batch.ids, batch.mask, strict=True)]


def test_a_run_of_four_processes_goes_on_with_two(table, tmp_path):
    """Whatever the number of processes and workers, a step's pairs are the same, and each is computed once."""
    options = ["data.augment=resized-crop", "data.batch_size=12", "data.last=keep"]
    before = [loader(table, tmp_path, *options, rank=r, world=4) for r in range(4)]
    after = [loader(table, tmp_path, *options, "data.workers=1", rank=r, world=2) for r in range(2)]
    whole = list(loader(table, tmp_path, *options).batches(3, 9))
    assert [len(batch.pair_ids) for batch in whole] == [12, 12, 4, 12, 12, 12]
    for shares in (before, after):
        for step, parts in enumerate(zip(*(one.batches(3, 9) for one in shares), strict=True)):
            assert all(part.pair_ids == whole[step].pair_ids for part in parts)
            assert torch.equal(torch.cat([part.pixels for part in parts]), whole[step].pixels)
            assert torch.equal(torch.cat([part.keys for part in parts]), whole[step].keys)
            assert [text for part in parts for text in words(part)] == words(whole[step])


def test_a_mixture_is_drawn_anew_each_time_and_alike_by_all_processes(table, tmp_path):
    mixed = pairs()
    mixed.shares = (Share("a", 0, 4, 0.5), Share("b", 4, 64, 0.5))
    options = ["data.augment=resized-crop", "data.batch_size=16", "data.epoch_pairs=32"]
    whole = list(loader(mixed, tmp_path, *options).batches(0, 2))
    halves = [list(loader(mixed, tmp_path, *options, rank=r, world=2).batches(0, 2)) for r in (0, 1)]
    for step, parts in enumerate(zip(*halves, strict=True)):
        assert torch.equal(torch.cat([part.pixels for part in parts]), whole[step].pixels)
    shown = [
        (name, x.numpy().tobytes())
        for batch in whole
        for name, x in zip(batch.pair_ids, batch.pixels, strict=True)
    ]
    small = [one for one in shown if one[0] in mixed.ids[:4]]
    assert len(small) == 16
    assert len(set(small)) > 12, "four pairs, four times each: other parts and flips of them"
    keys = torch.cat([batch.keys for batch in whole])
    assert len(set(keys.tolist())) == 32


def test_pixels_are_normalised_where_they_are_computed_with(table, tmp_path):
    load = loader(table, tmp_path)
    batch = next(load.batches(0, 1))
    assert batch.pixels.dtype == torch.uint8
    moved = batch.to(torch.device("cpu"), load.model.preprocess)
    rows = load.order.step(0).rows
    assert torch.equal(moved.pixels[5], load.model.preprocess(decode_row(table, int(rows[5]))))


def test_augmented_pictures_depend_on_epoch_and_id_not_on_workers(table, tmp_path):
    options = ["data.augment=autoaugment"]
    here = list(loader(table, tmp_path, *options).batches(0, 5))
    there = list(loader(table, tmp_path, *options, "data.workers=2").batches(0, 5))
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a.pixels, b.pixels)
    plain = next(loader(table, tmp_path).batches(0, 1))
    assert not torch.equal(plain.pixels, here[0].pixels)


def test_augmentation_leaves_every_other_generator_alone(table, tmp_path, monkeypatch):
    """torch.manual_seed would seed the GPUs' generators too, and dropout there would depend on a picture."""
    load = loader(table, tmp_path, "data.augment=autoaugment")
    before = torch.get_rng_state()
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("seeds every device"))
    next(load.batches(0, 1))
    assert torch.equal(torch.get_rng_state(), before)


def test_text_forms():
    class Table:
        texts = (["狐狸"], ["猫"])
        candidates = (["动物", "脸"], [])

    data = recipe.__globals__["load_recipe"]("emoji-lit-clip").data
    drawn = {
        form: {
            draw_text(Table, 0, data.model_copy(update={"draw": (form,)}), generator(s)) for s in range(40)
        }
        for form in ("text", "candidate", "candidates", "text+candidates")
    }
    assert drawn["text"] == {"狐狸"}
    assert drawn["candidate"] == {"狐狸", "动物", "脸"}
    assert drawn["candidates"] == {"动物，脸", "脸，动物"}
    assert drawn["text+candidates"] == {"狐狸，动物，脸", "狐狸，脸，动物"}
    assert draw_text(Table, 1, data.model_copy(update={"draw": ("candidates",)}), generator(0)) == "猫"


def test_a_batch_larger_than_the_data_or_uneven_shares_are_usage_errors(table, tmp_path):
    with pytest.raises(UsageError, match="fewer than one batch of 128"):
        loader(table, tmp_path, "data.batch_size=128")
    with pytest.raises(UsageError, match="not a multiple of 3"):
        loader(table, tmp_path, world=3)
