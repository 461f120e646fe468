"""Keyed dropout: its masks are a function of key, place and position alone, and look like chance."""

import pytest
import torch
from tiny_models_for_checkpoints import tiny_model

from vlcli.models.dropout import Dropout, keep_mask, pair_key


def murmur(x):
    """The 32-bit finaliser, in Python's own integers."""
    x ^= x >> 16
    x = x * 0x85EBCA6B % 2**32
    x ^= x >> 13
    x = x * 0xC2B2AE35 % 2**32
    return x ^ x >> 16


def test_the_bits_are_the_documented_hash():
    keys = torch.tensor([pair_key(0, 3, "a"), pair_key(0, 3, "b"), 2**63 - 1])
    mask, kept = keep_mask(keys, 7, (3, 5, 3), 0.25)
    assert kept == 0.75
    for row, key in enumerate(keys.tolist()):
        for index in range(15):
            word = murmur((key + index // 2 * 0x9E3779B1) % 2**32)
            word = murmur(word ^ ((key >> 32) + 7 * 0x9E3779B1) % 2**32)
            half = word >> (16 * (index % 2)) & 0xFFFF
            signed = half - 2**16 if half >= 2**15 else half
            assert mask[row].flatten()[index].item() == (signed >= 2**14 - 2**15)


def test_masks_look_like_independent_draws():
    keys = torch.tensor([pair_key(0, 0, i) for i in range(256)])
    p, shape = 0.1, (256, 12, 192)
    (mask, kept), (other, _) = (keep_mask(keys, place, shape, p) for place in (1, 2))
    n = mask.numel()
    assert abs(mask.float().mean() - kept) < 4 * (p * (1 - p) / n) ** 0.5
    a, b = ((m.float() - kept).flatten() / (p * (1 - p)) ** 0.5 for m in (mask, other))
    assert abs((a * b).mean()) < 4 / n**0.5, "places are independent"
    assert abs((a[1:] * a[:-1]).mean()) < 4 / n**0.5, "neighbours are independent"
    columns = mask.flatten(1).float().mean(0)  # over pairs
    assert columns.std() == pytest.approx((p * (1 - p) / 256) ** 0.5, rel=0.1)


def test_a_row_depends_on_its_key_alone():
    keys = torch.tensor([pair_key(0, 0, i) for i in range(4)])
    mask, _ = keep_mask(keys, 1, (4, 9, 6), 0.5)
    assert torch.equal(keep_mask(keys[2:], 1, (2, 9, 6), 0.5)[0], mask[2:]), "not on its neighbours"
    assert torch.equal(keep_mask(keys, 1, (4, 5, 6), 0.5)[0], mask[:, :5]), "not on the padding behind it"
    assert not torch.equal(mask[0], mask[1])


def test_the_layer_keeps_the_mean_and_rests_in_evaluation():
    layer = Dropout(0.3)
    keys = torch.arange(64) * 977 + 5
    x = torch.ones(64, 500)
    assert layer(x, keys).mean() == pytest.approx(1, abs=0.02)
    assert layer(x, keys).unique().tolist() == pytest.approx([0, 1 / 0.7], rel=1e-4)
    assert layer.eval()(x, keys) is x


def test_texts_of_a_batch_may_stand_in_any_order_and_company():
    """Groups of similar length, padding and neighbours change nothing, in training with dropout too."""
    torch.manual_seed(0)
    model = tiny_model(text={"width": 32, "layers": 2, "heads": 2, "dropout": 0.4}).train()
    texts = ["狐狸" * (1 + i % 7) for i in range(150)]
    keys = torch.tensor([pair_key(1, 2, i) for i in range(150)])
    ids, mask = model.tokenize(texts)
    with torch.no_grad():
        whole = model.encode_text(ids, mask, keys)
        part = model.encode_text(*model.tokenize(texts[3:5]), keys[3:5])
        again = model.encode_text(ids, mask, keys)
    n = part.tokens.shape[1]
    torch.testing.assert_close(whole.tokens[3:5, :n][part.mask], part.tokens[part.mask])
    assert torch.equal(whole.tokens, again.tokens)
    assert [d.place for d in model.modules() if isinstance(d, Dropout)] == [1, 2, 3, 4, 5]
