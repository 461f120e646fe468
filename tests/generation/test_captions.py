"""Captions are found by transformers' search: with the cache as without, in a batch as alone, within their bounds."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from caption_models import pixels, tiny

from vlcli.errors import UsageError
from vlcli.generation.captions import Decoding, captions, drawing, scores

WAYS = (
    Decoding(),
    Decoding("beam", beams=3),
    Decoding("sample", seed=3),
    Decoding("sample", top_p=0.8, temperature=0.7, repetition_penalty=1.3),
)


def said(found):
    return [caption.ids for caption in found]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("decoding", WAYS, ids=lambda d: f"{d.way}{d.top_p}")
def test_cached_equals_uncached_and_a_batch_equals_each_alone(kind, decoding):
    model, shown = tiny(kind), pixels(4)
    together = captions(model, shown, decoding, range(4))
    without = captions(model, shown, decoding, range(4), use_cache=False)
    alone = [captions(model, shown[i : i + 1], decoding, [i])[0] for i in range(4)]
    assert said(together) == said(without) == said(alone)
    for one, other in zip(together, alone, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)
    assert len({tuple(ids) for ids in said(together)}) > 1, "captions do not change with the picture"


@torch.no_grad()
def literal_greedy(model, picture, longest):
    """One token after the other from the whole prefix; what stands for no text is never chosen."""
    ids = [model.tokenizer.cls_id]
    while len(ids) - 1 < longest:
        logits = model(torch.tensor([ids]), picture)[0, -1].clone()
        logits[list(model.tokenizer.unwritten_ids)] = -torch.inf
        if len(ids) == 1:
            logits[model.tokenizer.sep_id] = -torch.inf
        ids.append(int(logits.argmax()))
        if ids[-1] == model.tokenizer.sep_id:
            return ids[1:-1]
    return ids[1:]


@torch.no_grad()
def test_greedy_is_its_literal_self():
    model, shown = tiny(), pixels(6)
    for i in range(6):
        picture = model.pictures(model.image_features(shown[i : i + 1]))
        found = captions(model, shown[i : i + 1], Decoding(), [0])[0]
        assert found.ids == literal_greedy(model, picture, 14)


@torch.no_grad()
def literal_beams(model, picture, beams, longest):
    """All extensions of the likeliest texts, the likeliest kept; the best finished one by its mean log-probability."""
    end = model.tokenizer.sep_id
    running, finished = [([model.tokenizer.cls_id], 0.0)], []
    for step in range(longest + 1):
        found = []
        for ids, total in running:
            chances = model(torch.tensor([ids]), picture)[0, -1].double().log_softmax(-1)
            chances[list(model.tokenizer.unwritten_ids)] = -torch.inf
            if not step:
                chances[end] = -torch.inf
            if step == longest:
                only = torch.full_like(chances, -torch.inf)
                only[end] = 0.0  # the end is forced, and costs nothing
                chances = only
            best = chances.topk(2 * beams)
            found += [
                ([*ids, int(i)], total + float(v)) for v, i in zip(*best, strict=True) if v > -torch.inf
            ]
        found.sort(key=lambda one: -one[1])
        for ids, total in found[:beams]:
            if ids[-1] == end:
                finished.append((total / (len(ids) - 1), ids[1:-1]))
        running = [(ids, total) for ids, total in found if ids[-1] != end][:beams]
        if not running:
            break
    return max(finished)[1]


def test_beams_are_their_literal_self():
    model, shown = tiny(), pixels(3)
    for i in range(3):
        picture = model.pictures(model.image_features(shown[i : i + 1]))
        found = captions(model, shown[i : i + 1], Decoding("beam", beams=3, max_length=5), [0])[0]
        assert found.ids == literal_beams(model, picture, 3, 5)


def test_lengths_hold_and_the_end_stops():
    model, shown = tiny(), pixels(8)
    for way in ("greedy", "beam", "sample"):
        for least, most in ((1, 4), (4, 4), (6, 14)):
            found = captions(model, shown, Decoding(way, min_length=least, max_length=most), range(8))
            assert all(least <= len(ids) <= most for ids in said(found))
            assert not {model.tokenizer.sep_id, *model.tokenizer.unwritten_ids} & {
                number for ids in said(found) for number in ids
            }
    with torch.no_grad():
        model.head.bias[model.tokenizer.sep_id] = 1e4
    assert {len(ids) for ids in said(captions(model, shown, Decoding(min_length=0), range(8)))} == {0}
    assert {len(ids) for ids in said(captions(model, shown, Decoding(min_length=2), range(8)))} == {2}
    empty = captions(model, shown, Decoding(min_length=0), range(8))[0]
    assert (empty.text, empty.score) == ("", pytest.approx(0, abs=1e-6))


def test_a_length_beyond_the_context_is_refused():
    model = tiny()
    with pytest.raises(UsageError, match="up to 15 tokens: the model reads 14"):
        captions(model, pixels(1), Decoding(max_length=15), [0])
    with pytest.raises(UsageError, match="at least 5 and at most 4"):
        captions(model, pixels(1), Decoding(min_length=5, max_length=4), [0])


def test_the_score_is_the_models_own_whatever_the_search():
    model, shown = tiny(), pixels(1)
    picture = model.pictures(model.image_features(shown))
    for decoding in (*WAYS, Decoding(max_length=2), Decoding(repetition_penalty=3.0)):
        found = captions(model, shown, decoding, [7])[0]
        ids = [model.tokenizer.cls_id, *found.ids, model.tokenizer.sep_id]
        total = 0.0
        with torch.no_grad():
            for place in range(1, len(ids)):
                chances = model(torch.tensor([ids[:place]]), picture)[0, -1].log_softmax(-1)
                total += float(chances[ids[place]])
        assert found.score == pytest.approx(total / (len(ids) - 1), abs=1e-4)
    assert len(scores(model, picture.expand(2, -1, -1, -1), [[5], [5, 6, 7]])) == 2


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (4.0, 1.0), (4.0, 0.6)])
def test_drawn_tokens_come_as_often_as_they_are_probable(temperature, top_p):
    logits = torch.tensor([3.0, 1.0, 2.0, -2.0, 6.0, 0.0])
    chances = (logits / temperature).softmax(-1)
    order = chances.argsort(descending=True)
    kept = order[chances[order].cumsum(0) - chances[order] < top_p].tolist()
    decoding = Decoding("sample", temperature=temperature, top_p=top_p, seed=5)
    rows = logits.expand(20_000, -1)
    for processor in drawing(decoding, range(len(rows))):
        rows = processor(torch.zeros(len(rows), 1, dtype=torch.int64), rows)
    seen = Counter(rows.argmax(1).tolist())
    assert set(seen) <= set(kept)
    for token in kept:
        chance = float(chances[token] / chances[kept].sum())
        spread = math.sqrt(chance * (1 - chance) / len(rows))
        assert abs(seen[token] / len(rows) - chance) < 5 * spread


def test_a_seed_gives_the_same_and_another_others():
    model, shown = tiny(), pixels(4)
    one = said(captions(model, shown, Decoding("sample", seed=1), range(4)))
    assert said(captions(model, shown, Decoding("sample", seed=1), range(4))) == one
    assert said(captions(model, shown, Decoding("sample", seed=2), range(4))) != one
    assert said(captions(model, shown, Decoding("sample", seed=1), range(4, 8))) != one


def test_a_penalty_keeps_tokens_from_coming_again():
    model, shown = tiny(), pixels(4)
    free = said(captions(model, shown, Decoding(min_length=14), range(4)))
    held = said(captions(model, shown, Decoding(min_length=14, repetition_penalty=100.0), range(4)))
    assert any(len(set(ids)) < len(ids) for ids in free)
    assert sum(len(ids) - len(set(ids)) for ids in held) < sum(len(ids) - len(set(ids)) for ids in free)


def test_rows_to_spare_in_the_table_are_never_written():
    model = tiny()
    with torch.no_grad():
        model.head.bias[-50:] = 1e3
    model.tokenizer = _Smaller(model.tokenizer)
    found = captions(model, pixels(2), Decoding(max_length=3), range(2))
    assert all(number < 21078 for ids in said(found) for number in ids)


class _Smaller:
    def __init__(self, tokenizer):
        self.tokenizer, self.vocab_size = tokenizer, tokenizer.vocab_size - 50

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)
