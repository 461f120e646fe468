"""Cached features are what the tower computes, once per image, and survive an interruption."""

import numpy as np
import pytest
import torch
from training_cases import pairs, recipe

from vlcli.evaluation.embed import decode_row
from vlcli.models.dual import DualEncoder
from vlcli.training.features import FeatureStore


@pytest.fixture(scope="module")
def table():
    return pairs(12)


def model(tmp_path, *overrides):
    torch.manual_seed(0)
    return DualEncoder(recipe(tmp_path, *overrides).model).eval()


@pytest.mark.parametrize("similarity", ["tokenwise", "global"])
def test_equal_to_the_tower(table, tmp_path, similarity):
    net = model(tmp_path, f"model.similarity={similarity}")
    store = FeatureStore(net, tmp_path, precision="fp32")
    rows = store.add(table)
    got = store.take(rows[[3, 1]])
    with torch.no_grad():
        want = net.image_features(torch.stack([net.preprocess(decode_row(table, i)) for i in (3, 1)]))
    torch.testing.assert_close(got.pooled, want.pooled, atol=1e-5, rtol=1e-5)
    if similarity == "tokenwise":
        torch.testing.assert_close(got.tokens, want.tokens, atol=1e-5, rtol=1e-5)
    else:
        assert got.tokens.shape[1] == 0


def test_half_precision_is_a_rounding(table, tmp_path):
    net = model(tmp_path)
    exact = FeatureStore(net, tmp_path, precision="fp32")
    half = FeatureStore(net, tmp_path, precision="bf16")
    assert exact.folder != half.folder
    a, b = exact.take(exact.add(table)), half.take(half.add(table))
    assert torch.equal(a.tokens.half().float(), b.tokens)


def test_each_image_is_encoded_once(table, tmp_path):
    net = model(tmp_path)
    seen = []
    FeatureStore(net, tmp_path, precision="fp32").add(table, progress=lambda done, total: seen.append(total))
    assert seen == [12]
    FeatureStore(net, tmp_path, precision="fp32").add(table, progress=lambda done, total: seen.append(total))
    assert seen == [12]


def test_other_weights_or_preprocessing_are_another_store(tmp_path):
    folders = {
        FeatureStore(model(tmp_path, f"model.image.preprocess.{setting}"), tmp_path, precision="fp32").folder
        for setting in ("size=64", "fit=crop", "mean=[0.0,0.0,0.0]")
    }
    other = model(tmp_path)
    other.image.body.conv_stem.weight.data += 1
    folders.add(FeatureStore(other, tmp_path, precision="fp32").folder)
    assert len(folders) == 4


def test_keys_lost_in_a_power_cut_shift_no_row(table, tmp_path):
    net = model(tmp_path)
    store = FeatureStore(net, tmp_path, precision="fp32")
    want = store.take(store.add(table)).tokens
    keys = store.folder / "keys.bin"
    keys.write_bytes(keys.read_bytes()[: 9 * 32] + bytes(3 * 32))  # a hole where three keys were
    again = FeatureStore(net, tmp_path, precision="fp32")
    rows = again.add(table)
    assert rows.tolist() == [*range(9), 12, 13, 14]
    assert torch.equal(again.take(rows).tokens, want)


def test_rows_without_keys_are_cut_off_and_written_again(table, tmp_path):
    net = model(tmp_path)
    store = FeatureStore(net, tmp_path, precision="fp32")
    want = store.take(store.add(table)).tokens
    keys, features = store.folder / "keys.bin", store.folder / "features.bin"
    keys.write_bytes(keys.read_bytes()[: 5 * 32 + 7])  # killed while it wrote keys
    features.write_bytes(features.read_bytes()[:-11])
    again = FeatureStore(net, tmp_path, precision="fp32")
    rows = again.add(table)
    assert np.array_equal(rows, np.arange(12))
    assert torch.equal(again.take(rows).tokens, want)
