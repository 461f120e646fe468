"""Batches of parallel text: amounts, order, lengths and processes, against literal counts."""

from collections import Counter

import numpy as np
import pytest
from distill_cases import rows, write_rows

from vlcli.errors import UsageError
from vlcli.schemas.distillation import DistillConfig, TextDataConfig
from vlcli.text.model_tokenizers import open_tokenizer
from vlcli.training.parallel_table import parallel_table
from vlcli.training.text_loader import TextLoader, quotas

LANGUAGES = ("en", "zh", "fr")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    more = [{**row, "en": f"{row['en']} again", "source": "other"} for row in rows()[:12]]
    return made(folder, [*rows(), *more])


def made(folder, found, cache=None, **options):
    file = write_rows(folder / "parallel.jsonl", found)
    settings = {"languages": LANGUAGES, "identity": True, "context": 32} | options
    return parallel_table([file], open_tokenizer("wordpiece-zh"), cache=cache, **settings)


class Vectors:
    """A teacher's vectors that say which sentence they are of."""

    def take(self, places):
        return np.repeat(np.asarray(places, np.float32)[:, None], 2, axis=1)


def loader(table, *, batch_size=8, window=4, seed=0, rank=0, world=1, **distill):
    found = TextLoader(
        table,
        Vectors(),
        DistillConfig(languages=LANGUAGES, **distill),
        TextDataConfig(batch_size=batch_size, window=window),
        padding=0,
        seed=seed,
        rank=rank,
        world=world,
    )
    found.read_vectors(np.arange(len(table.teacher_keys)))
    return found


def epoch_rows(found, epoch):
    steps = range(epoch * found.steps_per_epoch, (epoch + 1) * found.steps_per_epoch)
    return np.concatenate([found.rows_of(step)[1] for step in steps])


def test_tokens_and_sentences_are_those_of_the_rows(table):
    tokenizer = open_tokenizer("wordpiece-zh")
    row = table.names.index(("zh", "made"))
    pairs = np.flatnonzero(table.strata == row)[:3]
    ids, mask = table.tokens(pairs, 0)
    wanted, seen = tokenizer.encode([one["zh"] for one in rows()[:3]], length=32)
    assert np.array_equal(ids, wanted)
    assert np.array_equal(mask, seen)
    assert table.texts(table.teachers[pairs].tolist()) == [one["en"] for one in rows()[:3]]
    assert table.places(pairs[:1])[0].endswith("parallel.jsonl:1 zh")


def test_every_language_has_the_same_amount_and_sources_their_shares(table):
    """52 pairs of en and zh, 26 of fr: 43 of each; of three parts two are 'made', one 'other'."""
    found = quotas(table, DistillConfig(languages=LANGUAGES, sources={"made": 2, "other": 1}))
    counts = Counter()
    for number, pairs in found.items():
        counts[table.names[number]] = pairs
    assert {lang: counts[lang, "made"] + counts[lang, "other"] for lang in LANGUAGES} == dict.fromkeys(
        LANGUAGES, 43
    )
    assert all(counts[lang, "made"] == 29 for lang in LANGUAGES)
    only = quotas(table, DistillConfig(languages=LANGUAGES, sources={"made": 1}, amount=10))
    assert {table.names[number]: pairs for number, pairs in only.items()} == {
        (lang, "made"): 10 for lang in LANGUAGES
    }


def test_no_pair_comes_again_before_all_have_come(table):
    found = loader(table, amount=24, batch_size=8, sources={"made": 1})
    stratum = table.names.index(("zh", "made"))  # 40 pairs, 24 an epoch
    seen = Counter()
    for epoch in range(5):
        drawn = epoch_rows(found, epoch)
        assert len(drawn) == 72
        seen.update(drawn[table.strata[drawn] == stratum].tolist())
    assert set(seen.values()) == {3}  # 5 epochs of 24 are 3 rounds of 40
    scarce = table.names.index(("fr", "made"))  # 20 pairs, 24 an epoch
    drawn = epoch_rows(found, 0)
    counts = Counter(drawn[table.strata[drawn] == scarce].tolist())
    assert sorted(counts.values()) == [1] * 16 + [2] * 4


def test_the_order_is_of_seed_and_epoch_alone(table):
    first, again, other = (loader(table, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(epoch_rows(first, 2), epoch_rows(again, 2))
    assert not np.array_equal(epoch_rows(first, 2), epoch_rows(other, 2))
    assert not np.array_equal(epoch_rows(first, 1), epoch_rows(first, 2))
    steps = [(batch.rows, batch.ids) for batch in first.batches(3, 6)]
    rows, ids = next((batch.rows, batch.ids) for batch in again.batches(4, 5))
    assert np.array_equal(steps[1][0], rows)
    assert np.array_equal(steps[1][1], ids)


def test_processes_share_the_global_batch(table):
    """Whatever the number of processes, the same pairs; each its own, of one length as the others'."""
    whole = next(loader(table, batch_size=12).batches(2, 3))
    parts = [next(loader(table, batch_size=12, rank=rank, world=3).batches(2, 3)) for rank in range(3)]
    for part in parts:
        assert np.array_equal(part.rows, whole.rows)
    mine = np.concatenate([whole.rows[rank::3] for rank in range(3)])
    assert sorted(mine) == sorted(whole.rows)
    for rank, part in enumerate(parts):
        targets = table.teachers[whole.rows[rank::3]]
        assert part.target[:, 0].tolist() == targets.tolist()
        assert part.mask.sum(1).tolist() == table.lengths[whole.rows[rank::3]].tolist()
    longest = [int(part.mask.sum(1).max()) for part in parts]
    assert max(longest) - min(longest) <= 2
    with pytest.raises(UsageError, match=r"data\.batch_size 8 is not a multiple of 3 processes"):
        loader(table, batch_size=8, world=3)


def test_batches_of_one_window_are_of_similar_length(table):
    def padding(window):
        found = loader(table, window=window)
        batches = [table.lengths[found.rows_of(step)[1]] for step in range(found.steps_per_epoch)]
        return sum(int(one.max()) * len(one) - int(one.sum()) for one in batches)

    assert padding(16) < padding(4) < padding(1)
    narrow, wide = loader(table, window=1), loader(table, window=16)
    kept = narrow.steps_per_epoch * 8
    assert len(epoch_rows(narrow, 0)) == len(epoch_rows(wide, 0)) == kept
    assert sorted(epoch_rows(narrow, 0)) == sorted(epoch_rows(wide, 0))


def test_a_table_is_made_once_for_its_files_and_tokenizer(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = made(tmp_path, rows(), cache)
    with monkeypatch.context() as patch:
        patch.setattr("vlcli.training.parallel_table.read", lambda *_, **__: pytest.fail("it is read again"))
        assert parallel_again(tmp_path, cache).folder == first.folder
    assert parallel_again(tmp_path, cache, context=7).folder != first.folder
    assert made(tmp_path, rows()[:9], cache).split_hash != first.split_hash
    for folder in cache.iterdir():
        assert (folder / "table.json").is_file()


def parallel_again(folder, cache, **options):
    settings = {"languages": LANGUAGES, "identity": True, "context": 32} | options
    return parallel_table(
        [str(folder / "parallel.jsonl")], open_tokenizer("wordpiece-zh"), cache=cache, **settings
    )
