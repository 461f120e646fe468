"""Token selection against loops over samples and tokens, and what passes gradient and what does not."""

import math

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

from vlcli.objectives import late_interaction as kernel
from vlcli.objectives.late_interaction import late_interaction
from vlcli.objectives.token_selection import (
    kept_counts,
    select_image_tokens,
    select_text_tokens,
    token_scores,
)


def literal(image, text, mask, content, keep):
    """FILIP §3.1.1 with spec D16, one token at a time: positions kept of each image and of each text."""
    b, n1, _ = image.shape
    B, n2, _ = text.shape

    def best(scored, count):
        return sorted(sorted(scored, key=lambda position: (-scored[position], position))[:count])

    patches, words = [], []
    for i in range(b):
        scored = {
            k: max(float(image[i, k] @ text[j, r]) for j in range(B) for r in range(n2) if mask[j, r])
            for k in range(n1)
        }
        patches.append(best(scored, max(1, math.ceil(keep * n1))))
    for j in range(B):
        scored = {
            r: max(float(image[i, k] @ text[j, r]) for i in range(b) for k in range(n1))
            for r in range(n2)
            if mask[j, r]
        }
        kept = best(scored, max(1, math.ceil(keep * len(scored))))
        inside = {r: score for r, score in scored.items() if content[j, r]}
        if inside and not set(kept) & set(inside):  # the worst makes room for the best content token
            worst = max(kept, key=lambda position: (-scored[position], position))
            kept = sorted({*kept, best(inside, 1)[0]} - {worst})
        words.append(kept)
    return patches, words


def example(b=4, n1=7, B=5, n2=9, d=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    image = F.normalize(torch.randn(b, n1, d, generator=g, dtype=torch.float64), dim=-1)
    text = F.normalize(torch.randn(B, n2, d, generator=g, dtype=torch.float64), dim=-1)
    lengths = torch.randint(3, n2 + 1, (B,), generator=g)
    mask = torch.arange(n2)[None] < lengths[:, None]
    content = mask.clone()
    content[:, 0] = False
    content[torch.arange(B), lengths - 1] = False
    text[~mask] = 9.0  # what stands under the mask is nobody's business
    return image, text, mask, content


def select(image, text, mask, content, keep):
    """As the loop's own: scores, then both sides."""
    image_scores, text_scores = token_scores(image, text, mask)
    return select_image_tokens(image, image_scores, keep), select_text_tokens(
        text, mask, content, text_scores, keep
    )


def check(image, text, mask, content, keep):
    patches, words = literal(image, text, mask, content, keep)
    kept, (tokens, kept_mask, kept_content) = select(image, text, mask, content, keep)
    for i, positions in enumerate(patches):
        assert torch.equal(kept[i], image[i, positions])
    assert kept_mask.sum(1).tolist() == [len(positions) for positions in words]
    assert tokens.shape[1] == max(map(len, words))
    for j, positions in enumerate(words):
        n = len(positions)
        assert torch.equal(tokens[j, :n], text[j, positions])
        assert torch.equal(kept_content[j, :n], content[j, positions])
        assert not kept_mask[j, n:].any()
        assert not kept_content[j, n:].any()


@pytest.mark.parametrize("tile", [1, 50, 1 << 22])
@pytest.mark.parametrize("keep", [0.1, 0.25, 0.5, 1.0])
def test_equals_the_loops(keep, tile, monkeypatch):
    monkeypatch.setattr(kernel, "TILE_ELEMENTS", tile)
    check(*example(), keep)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([0.25, 0.5, 0.7]), st.integers(1, 4), st.integers(1, 9))
def test_equals_the_loops_on_any_batch(seed, keep, b, n1):
    check(*example(b=b, n1=n1, B=b, seed=seed), keep)


def test_the_ceiling_is_of_the_number_meant():
    lengths = torch.tensor([1, 2, 3, 4, 5, 8, 49, 100, 196])
    assert kept_counts(lengths, 0.25).tolist() == [1, 1, 1, 1, 2, 2, 13, 25, 49]
    assert kept_counts(lengths, 0.5).tolist() == [1, 1, 2, 2, 3, 4, 25, 50, 98]
    assert kept_counts(lengths, 0.07).tolist() == [1, 1, 1, 1, 1, 1, 4, 7, 14], "0.07 · 100 is 7"
    assert torch.equal(kept_counts(lengths, 1.0), lengths)


def test_a_content_token_takes_the_place_of_the_worst_special_one():
    """[CLS] and [SEP] score best, and two of four tokens stay: one of them, and the better content token."""
    image = torch.tensor([[[1.0, 0.0]]])
    text = torch.tensor([[[0.9, 0.0], [0.1, 0.0], [0.3, 0.0], [0.8, 0.0]]])
    mask, content = torch.ones(1, 4).bool(), torch.tensor([[False, True, True, False]])
    _, (tokens, kept, kept_content) = select(image, text, mask, content, 0.5)
    assert torch.equal(tokens[..., 0], torch.tensor([[0.9, 0.3]]))
    assert kept.all()
    assert kept_content.tolist() == [[False, True]]
    _, (tokens, _, kept_content) = select(image, text, mask, content, 0.25)
    assert tokens[..., 0].item() == pytest.approx(0.3)
    assert kept_content.all()
    # A text of [CLS] and [SEP] alone has none to keep: the better of the two stays.
    _, (tokens, _, kept_content) = select(image, text.flip(1), mask, torch.zeros(1, 4).bool(), 0.25)
    assert tokens[..., 0].item() == pytest.approx(0.9)
    assert not kept_content.any()


def test_among_equals_the_earlier_token_stays():
    image = torch.tensor([[[0.5], [0.5], [0.5], [0.5]]])
    text = torch.tensor([[[1.0], [1.0]]])
    mask = torch.ones(1, 2).bool()
    positions = torch.arange(4.0).view(1, 4, 1)
    kept = select_image_tokens(positions, token_scores(image, text, mask)[0], 0.5)
    assert kept.flatten().tolist() == [0, 1]


def test_all_is_all():
    image, text, mask, content = example()
    kept, (tokens, kept_mask, kept_content) = select(image, text, mask, content, 1.0)
    width = int(mask.sum(1).max())
    assert torch.equal(kept, image)
    assert torch.equal(tokens[kept_mask], text[mask])
    assert torch.equal(kept_mask, mask[:, :width])
    assert torch.equal(kept_content, content[:, :width])


def test_gradients_equal_the_loops_and_what_is_left_out_has_none():
    image, text, mask, content = example(b=5, B=5)
    weights = torch.randn(2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    patches, words = literal(image, text, mask, content, 0.5)
    gradients = []
    for fast in (True, False):
        v, t = image.clone().requires_grad_(), text.clone().requires_grad_()
        if fast:
            kept, (tokens, kept_mask, kept_content) = select(v, t, mask, content, 0.5)
            i2t, t2i = late_interaction(kept, tokens, kept_mask, kept_content)
        else:
            i2t, t2i = (torch.zeros(5, 5, dtype=torch.float64) for _ in range(2))
            for i in range(5):
                for j in range(5):
                    scores = v[i, patches[i]] @ t[j, words[j]].T
                    i2t[i, j] = scores.amax(1).mean()
                    t2i[i, j] = scores.amax(0)[content[j, words[j]]].mean()
        (weights[0] * i2t + weights[1] * t2i).sum().backward()
        gradients.append((v.grad, t.grad))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-14)
    for i, positions in enumerate(patches):
        assert gradients[0][0][i].abs().sum(1).nonzero().flatten().tolist() == positions
    for j, positions in enumerate(words):
        assert set(gradients[0][1][j].abs().sum(1).nonzero().flatten().tolist()) <= set(positions)


def test_gradient_in_float64():
    image, text, mask, content = example(b=2, n1=4, B=2, n2=5, d=3)
    text = text.masked_fill(~mask[..., None], 0.1)

    def both(v, t):
        kept, words = select(v, t, mask, content, 0.5)
        return late_interaction(kept, *words)

    assert torch.autograd.gradcheck(both, (image.requires_grad_(), text.requires_grad_()))
