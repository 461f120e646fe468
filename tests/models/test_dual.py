"""The dual encoder: unit vectors, pooling at [SEP], content masks, batches that can be cut and joined."""

import pytest
import torch
from tiny_models_for_checkpoints import tiny_model

from vlcli.errors import UsageError
from vlcli.models.config import DualEncoderConfig
from vlcli.models.dual import DualEncoder, cat


@pytest.fixture(scope="module", params=["tokenwise", "global"])
def model(request):
    torch.manual_seed(0)
    return tiny_model(request.param).eval()


def test_everything_in_the_joint_space_has_length_one(model):
    with torch.no_grad():
        image = model.encode_image(torch.randn(2, 3, 32, 32))
        text = model.encode_text(*model.tokenize(["狐狸", "笑脸"]))
    for x in (image.tokens, image.pooled, text.tokens, text.pooled):
        if x is not None:
            torch.testing.assert_close(x.norm(dim=-1), torch.ones(x.shape[:-1]))
    assert (image.tokens is None) == (model.similarity_kind == "global") == (text.tokens is None)


def test_content_is_what_is_neither_padding_nor_cls_nor_sep(model):
    text = model.encode_text(*model.tokenize(["狐狸", "一只猫"]))
    assert text.mask.tolist() == [[True] * 4 + [False], [True] * 5]
    assert text.content_mask.tolist() == [[False, True, True, False, False], [False, True, True, True, False]]


def test_a_longer_neighbour_changes_nothing(model):
    with torch.no_grad():
        image = model.encode_image(torch.randn(1, 3, 32, 32))
        alone = model.similarity(image, model.encode_text(*model.tokenize(["狐狸"])))
        beside = model.similarity(image, model.encode_text(*model.tokenize(["狐狸", "很长很长很长的一句话"])))
    torch.testing.assert_close(alone.i2t[:, 0], beside.i2t[:, 0])
    torch.testing.assert_close(alone.t2i[:, 0], beside.t2i[:, 0])


def test_the_global_text_vector_stands_at_sep():
    torch.manual_seed(0)
    model = tiny_model("global").eval()
    ids, mask = model.tokenize(["狐狸"])
    with torch.no_grad():
        hidden = model.text_projection(model.text(ids))
        want = torch.nn.functional.normalize(hidden[0, ids[0].tolist().index(model.tokenizer.sep_id)], dim=0)
        torch.testing.assert_close(model.encode_text(ids, mask).pooled[0], want)


def test_rows_and_cat_are_inverse(model):
    with torch.no_grad():
        text = model.encode_text(*model.tokenize(["狐狸", "一只猫", "山"]))
        short = model.encode_text(*model.tokenize(["山"]))
    joined = cat([text.rows(slice(0, 2)), short])
    torch.testing.assert_close(joined.mask, text.mask)
    assert joined.content_mask.dtype == torch.bool
    back = cat([text.rows(slice(0, 1)), text.rows(slice(1, 3))])
    for a, b in zip(back, text, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_a_locked_tower_stays_in_evaluation_mode():
    model = tiny_model().train()
    assert model.training
    assert not model.image.training
    assert model.text.training


def test_the_scale_is_bounded():
    model = tiny_model()
    with torch.no_grad():
        model.log_scale.fill_(9.0)
    assert model.scale().item() == model.config.temperature.max_scale


def test_a_temperature_at_its_bound_can_come_back():
    model = tiny_model()
    with torch.no_grad():
        model.log_scale.fill_(9.0)
    model.bound_scale_()
    assert model.scale().item() == pytest.approx(model.config.temperature.max_scale, rel=1e-5)
    model.scale().backward()
    assert model.log_scale.grad > 0


def test_a_fixed_temperature_stays_at_its_bound():
    model = tiny_model(temperature={"init": 0.01, "learnable": False})
    before = model.log_scale.clone()
    model.bound_scale_()
    assert torch.equal(model.log_scale, before)
    assert model.scale().item() == pytest.approx(100)
    assert not model.log_scale.requires_grad


def test_zero_padding_is_as_released_whatever_the_batch_and_for_evaluation_alone():
    """Texts padded to the context with vectors of zeros: a maximum over all 32 slots, and the mean over patches."""
    torch.manual_seed(0)
    model = tiny_model(i2t_padding="zero", t2i_special_tokens="include").eval()
    texts = ["狐狸", "一只猫", "山" * 40]  # the last one fills the context
    with torch.no_grad():
        image = model.encode_image(torch.randn(2, 3, 64, 64))
        # patches at odds with every word of the first text
        text = model.encode_text(*model.tokenize(texts))
        away = torch.nn.functional.normalize(-text.tokens[0, :4].sum(0) + 0.1 * image.tokens, dim=-1)
        image = image._replace(tokens=away)
        found = model.similarity(image, text)
        alone = model.similarity(image, model.encode_text(*model.tokenize(texts[:1])))
        want = torch.empty(2, 2, 3)
        for j in range(3):
            length = int(text.mask[j].sum())
            words = torch.zeros(32, 16)
            words[:length] = text.tokens[j, :length]
            scores = image.tokens @ words.T  # (2, n1, 32)
            want[0, :, j] = scores.max(2).values.mean(1)
            want[1, :, j] = scores.max(1).values.sum(1) / length
        torch.testing.assert_close(found.i2t, want[0])
        torch.testing.assert_close(found.t2i, want[1])
        torch.testing.assert_close(alone.i2t[:, 0], found.i2t[:, 0])
        masked = model.train().similarity(image, text)
    assert (found.i2t[:, 0] >= 0).all()
    assert (masked.i2t[:, 0] < 0).all(), "in training padding is −inf"
    torch.testing.assert_close(masked.i2t[:, 2], found.i2t[:, 2])


def test_a_vocabulary_too_small_is_a_usage_error():
    with pytest.raises(UsageError, match="the tokenizer has 21128 tokens"):
        DualEncoder(DualEncoderConfig.model_validate({"text": {"vocabulary": 100}}))


@pytest.mark.parametrize("tokens", [1, 40, 256])
def test_grouping_by_length_changes_nothing(model, tokens, monkeypatch):
    ids, mask = model.tokenize(["狐" * (1 + i * 7 % 20) for i in range(90)])
    image = model.encode_image(torch.randn(2, 3, 32, 32))

    def scores(tokens):
        monkeypatch.setattr("vlcli.models.text_passes.TOKENS_ON_CPU", tokens)
        with torch.no_grad():
            return model.similarity(image, model.encode_text(ids, mask))

    lengths = []
    hook = model.text.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape))
    a = scores(tokens)
    hook.remove()
    assert sum(rows for rows, _ in lengths) == 90
    assert sum(rows * length for rows, length in lengths) < 1.25 * int(mask.sum()) < ids.numel()
    assert all(rows * length <= max(2 * tokens, 22) for rows, length in lengths)
    b = scores(10**9)
    torch.testing.assert_close(a.i2t, b.i2t)
    torch.testing.assert_close(a.t2i, b.t2i)


def test_no_texts_are_encoded_to_nothing(model):
    ids, mask = torch.zeros(0, 5, dtype=torch.int64), torch.zeros(0, 5, dtype=torch.bool)
    assert len(model.encode_text(ids, mask).mask) == 0
