"""Token reduction against slow loops over the papers' symbols, as released and as printed (Wukong Eq 6, spec D13)."""

import pytest
import torch
from pydantic import ValidationError
from tiny_models_for_checkpoints import tiny_model
from torch.nn import functional as F

from vlcli.models.config import DualEncoderConfig, ReductionConfig
from vlcli.models.image_tower import ImageFeatures
from vlcli.models.token_reduction import PaperReduction, ReleasedReduction, token_reduction
from vlcli.objectives.late_interaction import late_interaction

B, SIDE, D, N = 2, 3, 16, 5


def released_by_loops(layer, x):
    """LayerNorm → 1×1 convolution in 8 groups → 1×1 convolution to n' → softmax over positions; values from x."""
    first, second = (conv.weight[:, :, 0, 0] for conv in layer.attention_maps)
    group = D // 8
    out = torch.zeros(B, N, D, dtype=x.dtype)
    for b in range(B):
        logits = torch.zeros(N, SIDE * SIDE, dtype=x.dtype)
        values = torch.zeros(SIDE * SIDE, D, dtype=x.dtype)
        for p in range(SIDE * SIDE):
            z = x[b, p]
            normed = (z - z.mean()) / (z.var(unbiased=False) + layer.norm.eps).sqrt()
            normed = normed * layer.norm.weight + layer.norm.bias
            hidden = torch.zeros(D, dtype=x.dtype)
            for c in range(D):
                start = (c // group) * group
                for i in range(group):
                    hidden[c] += first[c, i] * normed[start + i]
                    values[p, c] += layer.feat_conv.weight[c, i, 0, 0] * z[start + i]
            for k in range(N):
                logits[k, p] = (second[k] * hidden).sum()
        for k in range(N):
            weights = logits[k].exp() / logits[k].exp().sum()
            for p in range(SIDE * SIDE):
                out[b, k] += weights[p] * values[p]
    return out


def convolved(conv, x):
    """A convolution (c', c, k, k) over a square (c, side, side), one product at a time; zeros beyond its edge."""
    reach = conv.kernel_size[0] // 2
    out = torch.zeros(conv.out_channels, SIDE, SIDE, dtype=x.dtype) + conv.bias[:, None, None]
    for row in range(SIDE):
        for column in range(SIDE):
            for up in range(-reach, reach + 1):
                for right in range(-reach, reach + 1):
                    at = row + up, column + right
                    if all(0 <= place < SIDE for place in at):
                        weight = conv.weight[:, :, up + reach, right + reach]
                        out[:, row, column] += weight @ x[:, at[0], at[1]]
    return out


def paper_by_loops(layer, z, sigmoid):
    """Z_k = AvgPool(Conv_k(z) ⊙ z)."""
    out = torch.zeros(B, N, D, dtype=z.dtype)
    first, _, second = layer.attention_maps
    for b in range(B):
        maps = convolved(second, F.gelu(convolved(first, z[b].T.reshape(D, SIDE, SIDE))))
        for k in range(N):
            for row in range(SIDE):
                for column in range(SIDE):
                    weight = maps[k, row, column]
                    weight = 1 / (1 + (-weight).exp()) if sigmoid else weight
                    out[b, k] += weight * z[b, row * SIDE + column] / SIDE**2
    return out


def test_as_released():
    torch.manual_seed(0)
    layer = ReleasedReduction(D, ReductionConfig(tokens=N))
    torch.nn.init.normal_(layer.norm.weight)
    torch.nn.init.normal_(layer.norm.bias)
    x = torch.randn(B, SIDE**2, D)
    with torch.no_grad():
        reduced = layer(x)
        torch.testing.assert_close(reduced.tokens, released_by_loops(layer, x))
        torch.testing.assert_close(reduced.maps.sum(2), torch.ones(B, N))
        torch.testing.assert_close(reduced.maps @ reduced.values, reduced.tokens)
    # Position by position: patches in another order give the same tokens.
    order = torch.randperm(SIDE**2)
    torch.testing.assert_close(layer(x[:, order]).tokens, reduced.tokens)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        "norm.weight": (D,),
        "norm.bias": (D,),
        "attention_maps.0.weight": (D, D // 8, 1, 1),
        "attention_maps.1.weight": (N, D, 1, 1),
        "feat_conv.weight": (D, D // 8, 1, 1),
    }, "the tensors of the released checkpoints, without biases in the convolutions"


@pytest.mark.parametrize(("kernel", "gate"), [(3, "sigmoid"), (1, "sigmoid"), (3, "none")])
def test_as_printed(kernel, gate):
    torch.manual_seed(0)
    layer = PaperReduction(D, ReductionConfig(kind="paper", tokens=N, kernel=kernel, gate=gate))
    z = torch.randn(B, SIDE**2, D)
    with torch.no_grad():
        torch.testing.assert_close(layer(z).tokens, paper_by_loops(layer, z, gate == "sigmoid"))
        assert not torch.allclose(layer(z).tokens[:, 0], layer(z).tokens[:, 1]), "the tokens differ"


FORMS = (
    {"kind": "released"},
    {"kind": "paper"},
    {"kind": "paper", "kernel": 1},
    {"kind": "paper", "gate": "none"},
)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
def test_gradients_equal_those_of_the_loops_in_float64(form):
    """Of the tokens and of every parameter of the layer."""
    torch.manual_seed(0)
    layer = token_reduction(D, D, ReductionConfig(tokens=N, **form)).double()
    x = torch.randn(B, SIDE**2, D, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(B, N, D, dtype=torch.float64)
    wrt = [x, *layer.parameters()]
    loops = (
        released_by_loops(layer, x)
        if form["kind"] == "released"
        else paper_by_loops(layer, x, "gate" not in form)
    )
    tokens = layer(x).tokens
    torch.testing.assert_close(tokens, loops, rtol=1e-12, atol=1e-13)
    ours, theirs = (torch.autograd.grad((out * weights).sum(), wrt) for out in (tokens, loops))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
def test_gradients_in_float64(form):
    """From a tower's tokens to the similarities: reduced, of length one, compared with words."""
    torch.manual_seed(0)
    layer = token_reduction(8, 8, ReductionConfig(tokens=3, **form)).double()
    x = torch.randn(2, 4, 8, dtype=torch.float64, requires_grad=True)
    words = F.normalize(torch.randn(2, 3, 8, dtype=torch.float64), dim=-1).requires_grad_()
    mask = torch.tensor([[True, True, True], [True, True, False]])
    assert torch.autograd.gradcheck(
        lambda x, words: late_interaction(F.normalize(layer(x).tokens, dim=-1), words, mask), (x, words)
    )


@pytest.mark.parametrize("kind", ["released", "paper"])
def test_a_reduced_model_compares_its_few_tokens(kind):
    torch.manual_seed(0)
    model = tiny_model("reduced", reduction={"kind": kind, "tokens": 3}).eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        image = model.encode_image(pixels)
        text = model.encode_text(*model.tokenize(["狐狸", "一只猫"]))
        assert image.tokens.shape == (2, 3, 16)
        torch.testing.assert_close(image.tokens.norm(dim=-1), torch.ones(2, 3))
        found = model.similarity(image, text)
        for i in range(2):
            for j in range(2):
                words = text.tokens[j][text.mask[j]]
                content = text.tokens[j][text.content_mask[j]]
                i2t = (image.tokens[i] @ words.T).max(1).values.mean()
                t2i = (image.tokens[i] @ content.T).max(0).values.mean()
                torch.testing.assert_close(found.i2t[i, j], i2t)
                torch.testing.assert_close(found.t2i[i, j], t2i)
        # From features as from pixels; where each form stands: after the projection, or before it.
        features = model.image_features(pixels)
        assert isinstance(features, ImageFeatures)
        torch.testing.assert_close(model.project_image(features).tokens, image.tokens)
        projected = model.image_projection(features.tokens)
        if kind == "released":
            want = model.reduction(projected).tokens
        else:
            want = model.image_projection(model.reduction(features.tokens).tokens)
        torch.testing.assert_close(F.normalize(want, dim=-1), image.tokens)


def test_what_cannot_be():
    with pytest.raises(ValidationError, match="multiple of the 8 groups"):
        DualEncoderConfig(dim=20, similarity="reduced")
    DualEncoderConfig(dim=20, similarity="tokenwise")
    with pytest.raises(ValidationError, match="the released layer has neither"):
        ReductionConfig(kernel=1)
    assert DualEncoderConfig.model_validate({"reduction": "paper"}).reduction.kind == "paper"
