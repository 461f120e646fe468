"""Back-translations from `filter` through shards to the loader, which draws one of text and candidates [F §3.2]."""

from collections import Counter

import numpy as np
import pytest
from training_cases import CORPUS, recipe

from vlcli import cli
from vlcli.models.dual import DualEncoder
from vlcli.shards.pairs import load_pairs
from vlcli.training.loader import Loader

ROWS, EPOCHS = 16, 60


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Sixteen drawings, each with its name and what a translator makes of it through two languages."""
    folder = tmp_path_factory.mktemp("candidates")
    rows = folder / "rows.parquet"
    cli.app(
        ["filter", str(CORPUS), "--map", "text=name", "--head", str(ROWS), "-o", str(rows), "-q",
         "--source-lang", "zh", "--augment-text", "de,ru", "--translator", "command:sed -u 's/^/{source}/'"],
        standalone_mode=False,
    )  # fmt: skip
    cli.app(
        ["shard", str(rows), "-o", str(folder / "shards"), "-q", "--per-shard", "5"], standalone_mode=False
    )
    return load_pairs([str(folder / "shards")])


def drawn(table, tmp_path, seed=0, epochs=EPOCHS, **options):
    """(epochs, rows) which of a row's three texts each epoch showed, told by its token ids; -1: another process's."""
    settings = recipe(tmp_path, "data.cache=off", "data.workers=0", 'data.draw=["candidate"]')
    loader = Loader(table, DualEncoder(settings.model), settings.data, seed=seed, **options)
    assert loader.steps_per_epoch == 1
    shown = np.full((epochs, ROWS), -1)
    for epoch in range(epochs):
        batch = loader._prepare(epoch)
        rows = loader.order.step(epoch).rows[batch.local]
        for row, ids, mask in zip(rows, batch.ids, batch.mask, strict=True):
            texts = [table.texts[row][0], *table.candidates[row]]
            forms = [loader.model.tokenizer.encode([text], length=32)[0][0].tolist() for text in texts]
            shown[epoch, row] = forms.index(ids[mask].tolist())
    return shown


def test_candidates_come_through_shards(table):
    assert len(table) == ROWS
    for texts, candidates in zip(table.texts, table.candidates, strict=True):
        [text] = texts
        assert candidates == [f"dezh{text}", f"ruzh{text}"]


def test_each_of_the_three_is_drawn_as_often(table, tmp_path):
    shown = drawn(table, tmp_path)
    counts = Counter(shown.ravel().tolist())
    assert set(counts) == {0, 1, 2}
    expected = shown.size / 3
    assert (
        sum((n - expected) ** 2 / expected for n in counts.values()) < 13.8
    )  # chi-square, 2 degrees: p = 0.001
    per_row = np.stack([(shown == choice).sum(0) for choice in range(3)])  # (3, rows)
    assert per_row.min() >= 8, "no row has a favourite: each of 60 / 3, less three standard deviations"
    again = (shown[1:] == shown[:-1]).mean()
    assert abs(again - 1 / 3) < 0.06, "an epoch does not depend on the one before"


def test_the_choice_depends_on_seed_epoch_and_row_alone(table, tmp_path):
    shown = drawn(table, tmp_path, epochs=12)
    same = drawn(table, tmp_path, epochs=12)
    assert np.array_equal(shown, same)
    other = drawn(table, tmp_path, seed=1, epochs=12)
    assert not np.array_equal(shown, other)
    halves = [drawn(table, tmp_path, epochs=12, rank=rank, world=2) for rank in (0, 1)]
    assert np.array_equal(np.maximum(*halves), shown), "two processes draw what one draws"
    assert np.array_equal((halves[0] < 0), (halves[1] >= 0))
