"""From texts to pictures: conditions with masks, guidance, parts that fit together, equal pictures for equal seeds."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from unclip_cases import OTHER, decoder, dual, prior

from vlcli.errors import InputError, UsageError
from vlcli.generation.noise_process import NoiseProcess
from vlcli.generation.painter import Painter, Way
from vlcli.generation.prompts import given_prompts, row_prompts, too_long
from vlcli.generation.unclip import (
    as_encoder,
    drawn,
    likeliest_embeddings,
    predicted_embeddings,
    text_condition,
)
from vlcli.models.prior import TextCondition
from vlcli.records.reader import read

TEXTS = ["红", "一只狐狸", "绿色"]
HASH = "a" * 16


@pytest.fixture(scope="module")
def encoder():
    model = as_encoder(dual())
    model.checkpoint_hash = HASH
    return model


def condition(encoder, texts=TEXTS):
    return text_condition(encoder, *encoder.tokenize(texts))


def test_a_condition_is_what_the_dual_encoder_says(encoder):
    ids, mask = encoder.tokenize(TEXTS)
    told = text_condition(encoder, ids, mask)
    assert torch.allclose(told.pooled, encoder.encode_text(ids, mask).pooled, atol=1e-6)
    assert torch.equal(told.hidden, encoder.text_states(ids, mask))
    assert torch.equal(told.mask, mask)
    assert not told.pooled.requires_grad


@torch.no_grad()
def test_padding_behind_a_text_changes_nothing(encoder):
    """A text alone, and beside longer ones; and whatever stands where the mask is false."""
    model, told = prior(HASH), condition(encoder)
    noisy, level = torch.randn(3, 12), torch.tensor([3, 500, 999])
    together = model(noisy, level, told)
    for row, text in enumerate(TEXTS):
        alone = model(noisy[row : row + 1], level[row : row + 1], condition(encoder, [text]))
        assert torch.allclose(together[row], alone[0], atol=1e-5)
    noise = torch.where(told.mask[..., None], told.hidden, torch.randn_like(told.hidden))
    assert torch.allclose(together, model(noisy, level, told._replace(hidden=noise)), atol=1e-6)
    other = torch.where(told.mask[..., None], torch.randn_like(told.hidden), told.hidden)
    assert not torch.allclose(together, model(noisy, level, told._replace(hidden=other)), atol=1e-3)


@torch.no_grad()
def test_a_condition_that_is_dropped_is_the_same_for_all_texts(encoder):
    model, told = prior(HASH), condition(encoder)
    noisy, level = torch.randn(1, 12).expand(3, -1), torch.full((3,), 400)
    gone = torch.tensor([True, False, True])
    out = model(noisy, level, told.dropped(gone))
    assert torch.allclose(out[0], out[2], atol=1e-5)
    assert torch.allclose(out[1], model(noisy, level, told)[1], atol=1e-5)
    assert not torch.allclose(out[0], model(noisy, level, told)[0], atol=1e-3)
    assert (told.mask[0].any(), told.pooled[0].any()) == (True, True), "what was given stays as it was"


def test_standardised_and_back():
    model, wide = prior(HASH), torch.randn(5, 12)
    mean, deviation = torch.linspace(-0.1, 0.1, 12), torch.linspace(0.2, 0.4, 12)
    assert torch.allclose(model.standardise(wide), (wide - mean) / deviation)
    assert torch.allclose(model.restore(model.standardise(wide)), wide, atol=1e-6)
    assert torch.allclose(decoder(HASH).standardise(wide), (wide - mean) / deviation)


@torch.no_grad()
def test_embeddings_are_drawn_with_guidance_as_written_out(encoder):
    model, told = prior(HASH), condition(encoder)
    noise = torch.randn(3, 12)
    found = predicted_embeddings(model, told, noise, steps=3, guidance=2.5)
    process = NoiseProcess(model.config.noise)
    nothing = TextCondition(torch.zeros(3, 12), told.hidden, torch.zeros_like(told.mask))
    x = noise
    for here, there in ((999, 666), (666, 333), (333, None)):
        level = torch.full((3,), here)
        with_it, without = model(x, level, told), model(x, level, nothing)
        sample = without + 2.5 * (with_it - without)
        if there is None:
            break
        a, b = process.kept[here], process.kept[there]
        x = b.sqrt() * sample + (1 - b).sqrt() * (x - a.sqrt() * sample) / (1 - a).sqrt()
    assert torch.allclose(found, F.normalize(model.restore(sample), dim=-1), atol=1e-5)
    assert torch.allclose(found.norm(dim=1), torch.ones(3))
    plain = predicted_embeddings(model, told, noise, steps=3)
    assert torch.allclose(
        plain, predicted_embeddings(model, told, noise, steps=3, guidance=1.0 + 1e-7), atol=1e-4
    )
    assert not torch.allclose(plain, found, atol=1e-3)


@torch.no_grad()
def test_of_several_embeddings_the_one_nearest_to_the_text_is_taken(encoder):
    model, told = prior(HASH), condition(encoder)
    noises = [torch.randn(3, 12) for _ in range(4)]
    found = likeliest_embeddings(model, told, noises, steps=2, guidance=1.5)
    each = [predicted_embeddings(model, told, noise, steps=2, guidance=1.5) for noise in noises]
    for row in range(3):
        expected = max((one[row] for one in each), key=lambda x: float(x @ told.pooled[row]))
        assert torch.allclose(found[row], expected, atol=1e-6)


def test_pixels_stay_within_their_bounds_and_heed_the_embedding():
    model, noise = decoder(HASH), torch.randn(2, 3, 16, 16)
    one = drawn(model, F.normalize(torch.ones(2, 12), dim=-1), noise, steps=3, guidance=3.0)
    assert one.shape == (2, 3, 16, 16)
    assert float(one.abs().max()) <= 1
    other = drawn(model, F.normalize(-torch.ones(2, 12), dim=-1), noise, steps=3, guidance=3.0)
    assert not torch.allclose(one, other, atol=1e-3)


def test_parts_that_were_not_trained_with_one_another(encoder):
    fine = Painter(encoder, prior(HASH), decoder(HASH), Way())
    assert fine.origin["models"] == {"clip": HASH, "prior": "", "decoder": ""}
    with pytest.raises(
        UsageError, match=f"the prior was trained with the dual encoder {OTHER}, --clip is {HASH}"
    ):
        Painter(encoder, prior(OTHER), decoder(HASH), Way())
    with pytest.raises(UsageError, match="the decoder was trained with"):
        Painter(encoder, prior(HASH), decoder(OTHER), Way())
    with pytest.raises(UsageError, match="--steps 1001: the decoder knows 1000 levels"):
        Painter(encoder, prior(HASH), decoder(HASH), Way(steps=1001))
    with pytest.raises(UsageError, match="--prior-steps 5: the prior knows 4 levels"):
        Painter(encoder, prior(HASH, noise={"levels": 4}), decoder(HASH), Way(prior_steps=5))
    with pytest.raises(UsageError, match="one vector for an image"):
        as_encoder(dual("tokenwise"))


def test_a_picture_is_of_its_text_its_name_and_the_seed(encoder):
    def paint(texts, names, seed=0):
        painter = Painter(encoder, prior(HASH), decoder(HASH), Way(seed=seed, steps=3, prior_steps=2))
        return [np.asarray(picture).astype(int) for picture in painter(texts, names)]

    names = ["a", "b", "c"]
    together = paint(TEXTS, names)
    assert all(np.array_equal(x, y) for x, y in zip(together, paint(TEXTS, names), strict=True))
    # sums in batches of other sizes differ in their last digits, which may move a level by one
    alone = [paint([text], [name])[0] for text, name in zip(TEXTS, names, strict=True)]
    assert all(abs(x - y).max() <= 1 for x, y in zip(together, alone, strict=True))
    assert all(
        abs(x - y).max() <= 1 for x, y in zip(together, paint(TEXTS[::-1], names[::-1])[::-1], strict=True)
    )
    assert abs(together[0] - paint(TEXTS, names, seed=1)[0]).max() > 1
    assert abs(together[0] - paint(TEXTS, ["d", "b", "c"])[0]).max() > 1


def test_prompts(tmp_path, encoder):
    given = list(given_prompts(["红苹果", "狐狸"]))
    assert [(one.name, one.text) for one in given] == [("text/0", "红苹果"), ("text/1", "狐狸")]
    with pytest.raises(UsageError, match="--text is empty"):
        list(given_prompts(["红", "  "]))
    file = tmp_path / "rows.jsonl"
    lines = [
        {
            "id": "x/1",
            "image": "a.png",
            "width": 9,
            "height": 9,
            "text": ["红", "别的"],
            "label": "r",
            "lang": "zh",
        },
        {"text": "绿"},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = row_prompts(read([str(file)]))
    assert first == ("x/1", "红", {"id": "x/1", "label": "r", "lang": "zh"})
    assert (second.text, len(second.name)) == ("绿", 32)
    file.write_text(json.dumps(lines[0]) + "\n" + json.dumps({"image": "b.png", "text": " "}) + "\n")
    with pytest.raises(InputError, match=r"rows.jsonl:2: no text to draw"):
        list(row_prompts(read([str(file)])))


def test_prompts_that_do_not_fit(encoder):
    """The context of 8 has [CLS] and [SEP] in it."""
    prompts = list(given_prompts(["红" * 6, "红" * 7, "红"]))
    assert [one.name for one in too_long(encoder.tokenizer, prompts, 8)] == ["text/1"]
