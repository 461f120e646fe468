"""What R2D2's ranking costs: the counter, as the objective computes, and the closed form."""

import pytest
import torch

from vlcli.models.config import RankingConfig
from vlcli.models.flops import FlopCounter
from vlcli.models.r2d2 import Pairs, Ranking, TextStates
from vlcli.models.r2d2_cost import ranking_cost


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_closed_form_is_what_is_counted(layers, shared):
    config = RankingConfig(layers=layers, heads=2, intermediate=24, shared_head=shared)
    n, words, patches, masked = 2, 7, 5, 3
    ranking = Ranking(16, 12, 100, config)
    texts = TextStates(torch.zeros(n, words, 16), torch.ones(n, words, dtype=torch.bool))
    images = torch.zeros(n, patches, 12)
    pairs = Pairs(torch.zeros(3 * n, dtype=torch.long), torch.zeros(3 * n, dtype=torch.long))
    own = Pairs(torch.arange(n), torch.arange(n))
    with FlopCounter() as match:
        ranking(texts, images, pairs)
    with FlopCounter() as guess:
        ranking.mask_head(torch.zeros(n * masked, 16), torch.zeros(100, 16))
    with FlopCounter() as apart:
        ranking.read_texts(texts, images, own)
    sizes = {"width": 16, "image_width": 12, "vocabulary": 100, "words": words, "patches": patches}
    cost = ranking_cost(config, masked=masked, **sizes)
    assert (n * cost.match, n * cost.words, n * cost.own_pass) == (
        match.forward,
        guess.forward,
        apart.forward,
    )
    assert cost.step(words=True, enhanced=False) - cost.step(words=True, enhanced=True) == cost.own_pass
    assert cost.step(words=False, enhanced=True) == cost.match
