"""The tiled kernel against four nested loops, and its gradient against autograd through the whole tensor."""

import pytest
import torch
import torch.nn.functional as F

from vlcli.objectives import late_interaction as kernel
from vlcli.objectives.late_interaction import global_similarity, late_interaction, zero_padding


def literal(image, text, text_mask, content_mask, image_mask=None):
    """FILIP Eq 3-5 as printed: for every pair and every token, look for the best partner."""
    b, n1, _ = image.shape
    B, n2, _ = text.shape
    i2t, t2i = torch.zeros(b, B, dtype=image.dtype), torch.zeros(b, B, dtype=image.dtype)
    for i in range(b):
        patches = [k for k in range(n1) if image_mask is None or image_mask[i, k]]
        for j in range(B):
            valid = [r for r in range(n2) if text_mask[j, r]]
            content = [r for r in range(n2) if content_mask[j, r]]
            if valid:
                best = [max(image[i, k] @ text[j, r] for r in valid) for k in patches]
                i2t[i, j] = sum(best) / len(patches)
            if content:
                best = [max(image[i, k] @ text[j, r] for k in patches) for r in content]
                t2i[i, j] = sum(best) / len(content)
    return i2t, t2i


def plain(image, text, text_mask, content_mask):
    """The same through the whole (b, n1, B, n2) tensor, for autograd."""
    scores = torch.einsum("ikd,jrd->ikjr", image, text)
    i2t = scores.masked_fill(~text_mask[None, None], -torch.inf).amax(3).mean(1)
    best = scores.amax(1)
    return i2t, (best * content_mask[None]).sum(2) / content_mask.sum(1).clamp(min=1)[None]


def example(b=3, n1=5, B=4, n2=6, d=8, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    image = F.normalize(torch.randn(b, n1, d, generator=g, dtype=dtype), dim=-1)
    text = F.normalize(torch.randn(B, n2, d, generator=g, dtype=dtype), dim=-1)
    lengths = torch.randint(3, n2 + 1, (B,), generator=g)
    mask = torch.arange(n2)[None] < lengths[:, None]
    content = mask.clone()
    content[:, 0] = False
    content[torch.arange(B), lengths - 1] = False
    return image, text, mask, content


@pytest.mark.parametrize("tile", [1, 100, 1 << 22])
def test_equals_the_loops(tile, monkeypatch):
    monkeypatch.setattr(kernel, "TILE_ELEMENTS", tile)
    image, text, mask, content = example()
    got = late_interaction(image, text, mask, content)
    want = literal(image, text, mask, content)
    torch.testing.assert_close(got.i2t, want[0])
    torch.testing.assert_close(got.t2i, want[1])


def test_image_mask_leaves_patches_out():
    image, text, mask, content = example()
    keep = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    got = late_interaction(image, text, mask, content, keep)
    want = literal(image, text, mask, content, keep)
    torch.testing.assert_close(got.i2t, want[0])
    torch.testing.assert_close(got.t2i, want[1])


@pytest.mark.parametrize("tile", [1, 1 << 22])
def test_gradient_equals_autograd_through_the_whole_tensor(tile, monkeypatch):
    monkeypatch.setattr(kernel, "TILE_ELEMENTS", tile)
    image, text, mask, content = example(b=5, n1=7, B=6, n2=9, d=16)
    weights = torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for function in (late_interaction, plain):
        a, b = image.clone().requires_grad_(), text.clone().requires_grad_()
        i2t, t2i = function(a, b, mask, content)
        (weights[0] * i2t + weights[1] * t2i).sum().backward()
        gradients.append((a.grad, b.grad))
    torch.testing.assert_close(gradients[0][0], gradients[1][0])
    torch.testing.assert_close(gradients[0][1], gradients[1][1])


def test_padding_is_minus_infinity_and_not_zero():
    """A padded slot must not win the maximum when every real score is negative."""
    image = torch.tensor([[[1.0, 0.0]]])
    text = torch.tensor([[[-1.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, False]])
    assert late_interaction(image, text, mask).i2t.item() == -1.0


def test_a_text_without_content_scores_zero_and_passes_no_gradient():
    image, text, mask, content = example(dtype=torch.float32)
    content[1] = False
    mask[2] = content[2] = False
    image.requires_grad_()
    got = late_interaction(image, text, mask, content)
    assert got.t2i[:, 1].eq(0).all()
    assert got.i2t[:, 2].eq(0).all()
    assert got.t2i[:, 2].eq(0).all()
    (got.i2t[:, 2].sum() + got.t2i[:, 1:3].sum()).backward()
    assert image.grad.eq(0).all()


def test_bf16_tokens_are_accumulated_in_float32():
    image, text, mask, content = example(dtype=torch.float32, d=64)
    exact = late_interaction(image, text, mask, content)
    got = late_interaction(image.bfloat16(), text.bfloat16(), mask, content)
    assert got.i2t.dtype == torch.float32
    torch.testing.assert_close(got.i2t, exact.i2t, atol=0.02, rtol=0)


def test_global_similarity_is_the_cosine_both_ways():
    v, t = F.normalize(torch.randn(3, 4), dim=1), F.normalize(torch.randn(5, 4), dim=1)
    got = global_similarity(v, t)
    assert got.i2t is got.t2i
    torch.testing.assert_close(got.i2t, F.cosine_similarity(v[:, None], t[None], dim=2))


def test_an_image_without_tokens_scores_zero_and_passes_no_gradient():
    image, text, mask, content = example()
    keep = torch.ones(3, 5, dtype=torch.bool)
    keep[1] = False
    text.requires_grad_()
    got = late_interaction(image, text, mask, content, keep)
    assert got.i2t[1].eq(0).all()
    assert got.t2i[1].eq(0).all()
    (got.i2t[1].sum() + got.t2i[1].sum()).backward()
    assert text.grad.eq(0).all()


@pytest.mark.parametrize("tile", [1, 60, 1 << 22])
def test_any_mask_equals_the_loops(tile, monkeypatch):
    """Padding in front, holes, a text of one token, one of none, content anywhere in it, patches left out."""
    monkeypatch.setattr(kernel, "TILE_ELEMENTS", tile)
    image, text, _, _ = example(b=4, n1=5, B=6, n2=5)
    mask = torch.tensor(
        [[0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [0, 0, 0, 0, 1], [0] * 5, [1] * 5, [1, 1, 0, 0, 0]]
    ).bool()
    content = mask & torch.tensor([[1, 1, 0, 1, 1]]).bool()
    content[5] = False
    keep = torch.tensor([[1] * 5, [0, 1, 0, 0, 1], [0] * 5, [1, 0, 0, 0, 0]]).bool()
    text[~mask] = 100.0  # what stands under a mask is nobody's business
    image[~keep] = -100.0
    got = late_interaction(image, text, mask, content, keep)
    patches = [i for i in range(4) if keep[i].any()]
    want = literal(image[patches], text, mask, content, keep[patches])
    torch.testing.assert_close(got.i2t[patches], want[0])
    torch.testing.assert_close(got.t2i[patches], want[1])
    assert got.i2t[2].eq(0).all()
    assert got.t2i[2].eq(0).all()


def test_equal_captions_score_equally_and_share_no_gradient():
    """A caption twice in a batch: two columns of one value, each with its own gradient."""
    image, text, mask, content = example(dtype=torch.float32)
    text = text[[0, 1, 0, 3]].clone().requires_grad_()
    mask, content = mask[[0, 1, 0, 3]], content[[0, 1, 0, 3]]
    got = late_interaction(image, text, mask, content)
    torch.testing.assert_close(got.i2t[:, 0], got.i2t[:, 2])
    torch.testing.assert_close(got.t2i[:, 0], got.t2i[:, 2])
    (got.i2t[:, 0] + got.t2i[:, 0]).sum().backward()
    assert text.grad[0].abs().sum() > 0
    assert text.grad[1:].eq(0).all()


@pytest.mark.parametrize("with_image_mask", [False, True])
def test_gradient_in_float64(with_image_mask):
    image, text, mask, content = example(b=2, n1=3, B=3, n2=4, d=3)
    keep = torch.tensor([[True, False, True], [True, True, True]]) if with_image_mask else None
    assert torch.autograd.gradcheck(
        lambda v, t: late_interaction(v, t, mask, content, keep),
        (image.requires_grad_(), text.requires_grad_()),
    )


def test_global_similarity_keeps_float64():
    v, t = (torch.randn(n, 4, dtype=torch.float64, requires_grad=True) for n in (2, 3))
    assert torch.autograd.gradcheck(lambda v, t: global_similarity(v, t).i2t, (v, t))


def test_half_multiplies_fp16_values_and_averages_in_float32():
    """On a CPU the very numbers of the plain product of rounded tokens; gradients too, and not rounded."""
    image, text, mask, content = example(dtype=torch.float32, d=64)
    results = []
    for half in (True, False):
        v, t = image.clone().requires_grad_(), text.clone().requires_grad_()
        # values rounded beforehand, gradient passed on: what `half` promises
        a, b = (v, t) if half else (v + (v.half().float() - v).detach(), t + (t.half().float() - t).detach())
        got = late_interaction(a, b, mask, content, half=half)
        ((got.i2t + got.t2i) * 1e-6).sum().backward()
        results.append((got.i2t.detach(), got.t2i.detach(), v.grad, t.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-12)
    assert results[0][0].dtype == torch.float32
    exact = late_interaction(image, text, mask, content)
    assert not torch.equal(results[0][0], exact.i2t), "something is rounded"
    torch.testing.assert_close(results[0][0], exact.i2t, atol=2**-11, rtol=0)
    smallest = results[0][2].abs()
    assert (smallest[smallest > 0] < 2**-24).any(), "fp16 would have made these gradients zero"


def released(image, text, length, context):
    """Wukong's released similarity of one image and one text: `context` vectors, zeros behind `length`, no −inf;
    maximum, then mean over one's own tokens; the text's sum is divided by its number of tokens."""
    padded = [text[r] if r < length else torch.zeros_like(text[0]) for r in range(context)]
    i2t = sum(max(patch @ word for word in padded) for patch in image) / len(image)
    t2i = sum(max(patch @ word for patch in image) for word in padded) / max(length, 1)
    return i2t, t2i


def test_zero_padding_equals_the_released_formula():
    context = 9
    image, text, mask, _ = example(b=3, n1=2, B=5, n2=6)
    mask[0] = True
    text, mask = F.pad(text, (0, 0, 0, 3)), F.pad(mask, (0, 3))
    text[1] = F.normalize(torch.randn(9, 8, generator=torch.Generator().manual_seed(2)).double(), dim=-1)
    mask[1], mask[4] = True, False  # one fills the context, one is empty
    text[2] = -image[0].mean(0)  # and one that every patch of the first image turns its back on
    lengths = mask.sum(1)
    v, t = image.requires_grad_(), text.requires_grad_()
    got = late_interaction(v, *zero_padding(t, mask, mask, lengths < context))
    want = torch.stack(
        [torch.stack(released(v[i], t[j], int(lengths[j]), context)) for i in range(3) for j in range(5)]
    )
    torch.testing.assert_close(torch.stack([got.i2t.flatten(), got.t2i.flatten()], 1), want)
    masked = late_interaction(image, text, mask)
    assert got.i2t[0, 2] == 0 > masked.i2t[0, 2], "the floor"
    torch.testing.assert_close(got.i2t[:, 1], masked.i2t[:, 1])
    torch.testing.assert_close(got.t2i, masked.t2i)
    weights = torch.randn(2, 15, generator=torch.Generator().manual_seed(3)).double()
    ours = torch.autograd.grad((torch.stack([got.i2t.flatten(), got.t2i.flatten()]) * weights).sum(), (v, t))
    theirs = torch.autograd.grad((want.T * weights).sum(), (v, t))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("with_image_mask", [False, True])
def test_every_combination_equals_the_plain_product_of_the_same_values(dtype, half, with_image_mask):
    """Masks with holes, 16 bits in and 16 bits within: what is multiplied may be rounded, sums are float32's."""
    image, text, mask, content = example(b=9, n1=5, B=70, n2=7, d=32, dtype=torch.float32)
    mask[3, 0] = content[3, 1] = False
    image, text = image.to(dtype), text.to(dtype)
    keep = torch.rand(9, 5, generator=torch.Generator().manual_seed(1)) < 0.7 if with_image_mask else None
    if keep is not None:
        keep[:, 2] = True
    weights = torch.randn(2, 9, 70, generator=torch.Generator().manual_seed(2))
    found = []
    for ours in (True, False):
        v, t = image.clone().requires_grad_(), text.clone().requires_grad_()
        if ours:
            i2t, t2i = late_interaction(v, t, mask, content, keep, half=half)
        else:
            a, b = (
                x.float() + (x.half().float() - x.float()).detach() if half else x.float() for x in (v, t)
            )
            scores = torch.einsum("ikd,jrd->ikjr", a, b)
            kept = torch.ones(9, 5) if keep is None else keep.float()
            best = scores.masked_fill(~mask[None, None], -torch.inf).amax(3)
            i2t = torch.einsum("ikj,ik->ij", best, kept / kept.sum(1, keepdim=True))
            best = scores.masked_fill(~kept.bool()[:, :, None, None], -torch.inf).amax(1)
            t2i = (best * content).sum(2) / content.sum(1).clamp(min=1)
        assert i2t.dtype == t2i.dtype == torch.float32
        (weights[0] * i2t + weights[1] * t2i).sum().backward()
        found.append((i2t.detach(), t2i.detach(), v.grad.float(), t.grad.float()))
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-2}
    torch.testing.assert_close(found[0][:2], found[1][:2], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[0][2:], found[1][2:], **tolerance)


def test_only_one_side_may_want_a_gradient():
    image, text, mask, content = example()
    both = [x.clone().requires_grad_() for x in (image, text)]
    sum(x.sum() for x in late_interaction(*both, mask, content)).backward()
    for side in (0, 1):
        tokens = [image, text]
        tokens[side] = tokens[side].clone().requires_grad_()
        sum(x.sum() for x in late_interaction(*tokens, mask, content)).backward()
        assert torch.equal(tokens[side].grad, both[side].grad)


def test_what_is_not_finite_does_not_hide():
    """A run stops at it; a maximum that skipped it would train on."""
    image, text, mask, content = example(dtype=torch.float32)
    image[1, 2] = torch.nan
    got = late_interaction(image, text, mask, content)
    assert got.i2t[1].isnan().all()
    assert got.t2i[1].isnan().all()
    assert not got.i2t[[0, 2]].isnan().any()


def test_a_compiled_module_gives_the_same_and_does_not_compile_again_for_other_lengths():
    """The tiles follow the lengths of each batch: were they traced, every batch would be another graph."""
    import torch._dynamo.testing

    layer = torch.nn.Linear(8, 8).double()

    def score(v, t, mask, content):
        i2t, t2i = late_interaction(F.normalize(layer(v), dim=-1), t, mask, content)
        return (i2t * 2).logsumexp(1).sum() + (t2i * 2).logsumexp(0).sum()

    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(score, backend=counter)
    for seed in range(6):
        arguments = example(seed=seed)
        gradients = [
            torch.autograd.grad(function(*arguments), layer.weight)[0] for function in (score, compiled)
        ]
        torch.testing.assert_close(*gradients)
    assert counter.frame_count == 2, "before the kernel and after it, each once"
    torch._dynamo.reset()


@pytest.mark.parametrize("elements", [None, 700])
def test_image_to_text_alone_is_that_of_both(elements, monkeypatch):
    from vlcli.objectives import late_interaction as module

    if elements is not None:
        monkeypatch.setattr(module, "TILE_ELEMENTS", elements)
    generator = torch.Generator().manual_seed(3)
    image = torch.nn.functional.normalize(torch.randn(5, 7, 8, generator=generator), dim=-1)
    text = torch.nn.functional.normalize(torch.randn(9, 6, 8, generator=generator), dim=-1)
    mask = torch.rand(9, 6, generator=generator) < 0.6
    mask[4] = False  # a text without a token
    want = module.late_interaction(image, text, mask).i2t
    assert torch.allclose(module.image_to_text(image, text, mask), want, atol=1e-6)
    assert (want[:, 4] == 0).all()
