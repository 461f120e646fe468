"""The loss of captions beside its literal self: every token of a text and its end, nothing of one that says nothing."""

from __future__ import annotations

import math

import pytest
import torch

from vlcli.objectives.captioning import caption_loss, told


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_the_sum_over_tokens_of_minus_log_p(smoothing: float) -> None:
    logits = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = [3, 0, 6, 6, 1]
    total = 0.0
    for row, target in zip(logits.tolist(), targets, strict=True):
        whole = math.log(sum(math.exp(x) for x in row))
        for word, x in enumerate(row):
            share = smoothing / 7 + (1 - smoothing) * (word == target)
            total -= share * (x - whole)
    found = caption_loss(logits, torch.tensor(targets), label_smoothing=smoothing)
    assert found.value.item() == pytest.approx(total, rel=1e-12)
    assert found.weight.item() == 5


def test_a_text_is_learnt_from_its_first_token_to_its_end() -> None:
    """[CLS] a b [SEP], [CLS] [SEP] and padding, [CLS] a [SEP], and padding alone."""
    ids = torch.tensor([[101, 5, 6, 102], [101, 102, 0, 0], [101, 5, 102, 0], [0, 0, 0, 0]])
    wanted = told(ids, ids != 0)
    assert wanted.tolist() == [[True, True, True], [False] * 3, [True, True, False], [False] * 3]
    assert ids[:, 1:][wanted].tolist() == [5, 6, 102, 5, 102]


def test_nothing_to_learn_is_no_loss_and_no_nan() -> None:
    logits = torch.empty(0, 7, requires_grad=True)
    found = caption_loss(logits, torch.empty(0, dtype=torch.int64), label_smoothing=0.1)
    found.value.backward()
    assert (found.value.item(), found.weight.item()) == (0.0, 0.0)
