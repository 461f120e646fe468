"""Features are computed once: the same bits from the disk, nothing where anything that matters differs, bounded."""

from __future__ import annotations

import fcntl
import os

import pytest
import torch
from tiny_models import COLOURS, square, table, tiny

from vlcli.errors import UsageError
from vlcli.evaluation.embed import embed_images, embed_texts
from vlcli.evaluation.feature_cache import FeatureCache
from vlcli.evaluation.probes.features import image_vectors
from vlcli.evaluation.tasks import Retrieval, classify
from vlcli.text.prompts import PromptSet, load_prompts

TEXTS = ["一张红色的照片", "绿", "蓝色", "绿", "一张包含黄色的照片。", "蓝色"]


class Counting:
    """A model that counts what goes through its towers."""

    def __init__(self, model):
        self.model, self.images, self.texts = model, 0, 0

    def __getattr__(self, name):
        return getattr(self.model, name)

    def encode_image(self, pixels):
        self.images += len(pixels)
        return self.model.encode_image(pixels)

    def encode_text(self, ids, mask):
        self.texts += len(ids)
        return self.model.encode_text(ids, mask)


def same(one, other):
    for a, b in zip(one, other, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)


def at_content(features):
    """Tokens where there is a text: what stands in the padding is nobody's business."""
    if features.tokens is None:
        return features
    return features._replace(tokens=features.tokens[features.mask])


@pytest.mark.parametrize("kind", ["global", "tokenwise", "reduced"])
def test_the_same_bits_without_a_cache_and_from_an_old_or_a_new_one(kind, tmp_path):
    model = Counting(tiny(kind))
    pairs = table()
    plain = embed_images(model, pairs, batch_size=4)
    texts = embed_texts(model, TEXTS, batch_size=3)
    assert (model.images, model.texts) == (6, 4)  # of equal texts one
    for new in (True, False):
        with FeatureCache(model, tmp_path) as cache:
            same(plain, embed_images(model, pairs, batch_size=4, cache=cache))
            same(at_content(texts), at_content(embed_texts(model, TEXTS, batch_size=3, cache=cache)))
            assert cache.asked == {"image": 6, "text": 4}
            assert cache.found == ({"image": 0, "text": 0} if new else cache.asked)
    assert (model.images, model.texts) == (12, 8)


@pytest.mark.parametrize("kind", ["global", "tokenwise", "reduced"])
def test_results_are_equal(kind, tmp_path):
    model, pairs = Counting(tiny(kind)), table()
    prompts, none = PromptSet("three", ("{}", "一张{}的照片", "{}")), load_prompts("none")

    def results(cache):
        found = Retrieval(model, pairs, none, cache=cache, batch_size=4).metrics(bootstrap=50)
        return found, classify(model, pairs, prompts, cache=cache, bootstrap=50, batch_size=4)

    plain = results(None)
    with FeatureCache(model, tmp_path) as cache:
        assert results(cache) == plain
        assert cache.found["image"] == 6  # zeroshot has those of retrieve
    encoded = model.images, model.texts
    with FeatureCache(model, tmp_path) as cache:
        assert results(cache) == plain
    assert (model.images, model.texts) == encoded


@pytest.mark.parametrize("kind", ["global", "tokenwise"])
def test_what_a_probe_reads_before_the_projection_is_kept_beside_what_is_compared(kind, tmp_path):
    model, pairs = tiny(kind), table()
    plain = {which: image_vectors(model, pairs, which, batch_size=4) for which in ("pre", "post")}
    assert plain["pre"].shape != plain["post"].shape
    for new in (True, False):
        with FeatureCache(model, tmp_path) as cache:
            for which, expected in plain.items():
                assert torch.equal(image_vectors(model, pairs, which, batch_size=4, cache=cache), expected)
            assert cache.asked == {"tower": 6, "image": 6}
            assert cache.found == ({"tower": 0, "image": 0} if new else cache.asked)


def test_a_picture_of_several_rows_and_of_another_set_is_encoded_once(tmp_path):
    model = Counting(tiny())
    pictures = [square(colour) for colour in COLOURS.values()]
    with FeatureCache(model, tmp_path) as cache:
        embed_images(model, [pictures[0], pictures[1], pictures[0]], cache=cache)
        embed_images(model, [pictures[1], pictures[2]], cache=cache)
    assert model.images == 3


def test_anything_that_changes_a_feature_changes_the_folder(tmp_path):
    one, other = tiny("global"), tiny("tokenwise")
    folders = {
        FeatureCache(one, tmp_path).folder,
        FeatureCache(one, tmp_path, precision="bf16").folder,
        FeatureCache(other, tmp_path).folder,
    }
    hashed = Counting(one)
    hashed.checkpoint_hash = "fedcba9876543210"
    folders.add(FeatureCache(hashed, tmp_path).folder)
    assert len(folders) == 4
    assert FeatureCache(one, tmp_path).folder in folders


def test_a_truncated_cache_is_one_line_and_computed_anew(tmp_path):
    model, pairs = tiny(), table()
    plain = embed_images(model, pairs, batch_size=4)
    with FeatureCache(model, tmp_path) as cache:
        embed_images(model, pairs, batch_size=4, cache=cache)
        file = cache.folder / "image" / "vectors.bin"
    os.truncate(file, file.stat().st_size // 2)
    said: list[str] = []
    for _ in range(2):
        with FeatureCache(model, tmp_path, say=said.append) as cache:
            found = embed_images(model, pairs, batch_size=4, cache=cache)
            torch.testing.assert_close(found, plain, rtol=0, atol=1e-6)
    assert len(said) == 1
    assert "vectors.bin is cut short, 3 of about 6 are left; what is missing is computed anew" in said[0]


def test_a_full_cache_loses_what_is_longest_unused_and_nothing_in_use(tmp_path):
    model = Counting(tiny())
    folders = []
    for i, name in enumerate("abc"):
        model.checkpoint_hash = name * 16
        with FeatureCache(model, tmp_path) as cache:
            embed_images(model, table(), cache=cache)
            folders.append(cache.folder)
        os.utime(folders[-1] / "used", (i, i))
    size = sum(file.stat().st_size for file in folders[0].rglob("*") if file.is_file())
    model.checkpoint_hash = "d" * 16
    said: list[str] = []
    with (
        open(folders[0] / "used") as in_use,
        FeatureCache(model, tmp_path, limit=3 * size + 300, say=said.append) as cache,
    ):
        fcntl.flock(in_use, fcntl.LOCK_SH)
        embed_images(model, table(), cache=cache)
    assert [folder.exists() for folder in folders] == [True, False, True]
    assert not said
    model.checkpoint_hash = "e" * 16
    with FeatureCache(model, tmp_path / "small", limit=size // 2, say=said.append) as cache:
        same(embed_images(model, table(), cache=cache), embed_images(model, table()))
    assert len(said) == 1
    assert said[0].endswith("GB, all of them in use: no more features are kept")


def test_where_there_can_be_no_cache(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file: no cache can be here: .*; --cache off"):
        FeatureCache(tiny(), tmp_path / "file")
