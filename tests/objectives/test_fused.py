"""Handing over to fused kernels, by a stand-in of their signature, and their own reference as a second opinion."""

import inspect

import pytest
import torch
import torch.nn.functional as F

from vlcli.objectives import fused
from vlcli.objectives import late_interaction as kernel
from vlcli.objectives.late_interaction import late_interaction

CPU = torch.device("cpu")


def example(dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    image = F.normalize(torch.randn(5, 6, 16, generator=g), dim=-1).to(dtype)
    text = F.normalize(torch.randn(4, 7, 16, generator=g), dim=-1).to(dtype)
    mask = torch.arange(7) < torch.tensor([7, 3, 1, 5])[:, None]
    content = mask.clone()
    content[[0, 1, 3], 0] = False
    return image, text, mask, content


def stand_in(kind):
    """`maxsim` as the package has it, in plain torch: products of `kind`, sums in float32."""

    def maxsim(Q, D, q_mask=None, d_mask=None, *, normalize=False, backward=None):
        calls.append((backward, normalize))
        q, d = ((x.to(kind).float() - x.float()).detach() + x.float() for x in (Q, D))
        scores = torch.einsum("ild,jtd->ijlt", q, d)
        if d_mask is not None:
            assert d_mask.any(1).all(), "an empty document has no best score"
            scores = scores.masked_fill(~d_mask[None, :, None], -torch.inf)
        best = scores.amax(3)
        return best.sum(2) if q_mask is None else (best * q_mask[:, None]).sum(2)

    calls = []
    maxsim.calls = calls
    return maxsim


def hand_over(monkeypatch, maxsim):
    monkeypatch.setattr(fused, "installed", lambda device: maxsim)


def results(image, text, mask, content, keep=None, *, half=False):
    image, text = image.clone().requires_grad_(), text.clone().requires_grad_()
    got = late_interaction(image, text, mask, content, keep, half=half)
    (got.i2t.sum() + (got.t2i * got.i2t.detach()).sum()).backward()
    return got.i2t.detach(), got.t2i.detach(), image.grad.float(), text.grad.float()


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize(
    ("dtype", "half"), [(torch.float32, True), (torch.float16, False), (torch.bfloat16, False)]
)
def test_sixteen_bits_are_handed_over_and_say_the_same(monkeypatch, dtype, half, keeps):
    arguments = [*example(dtype), None]
    if keeps:
        arguments[4] = torch.arange(6) < torch.tensor([6, 0, 2, 1, 5])[:, None]
        arguments[2][3] = arguments[3][3] = False  # a text of padding alone
    own = results(*arguments, half=half)
    maxsim = stand_in(torch.float16 if half else dtype)
    hand_over(monkeypatch, maxsim)
    theirs = results(*arguments, half=half)
    assert maxsim.calls[-2:] == [("unified", False)] * 2, "once for each direction"
    for mine, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(other, mine, rtol=2e-2, atol=2e-3)


def test_float32_is_kept_where_the_other_rounds(monkeypatch):
    rounds, exact = stand_in(torch.float16), stand_in(torch.float32)
    own = results(*example())
    hand_over(monkeypatch, rounds)
    assert all(map(torch.equal, results(*example()), own))
    assert len(rounds.calls) == 2, "asked once, on the small example"
    results(*example())
    assert len(rounds.calls) == 2
    hand_over(monkeypatch, exact)
    results(*example())
    assert len(exact.calls) == 4


def test_float64_is_kept(monkeypatch):
    maxsim = stand_in(torch.float64)
    hand_over(monkeypatch, maxsim)
    results(*example(torch.float64))
    assert not maxsim.calls


def test_a_kernel_that_does_not_run_is_said_and_left(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no such architecture")

    hand_over(monkeypatch, broken)
    with pytest.warns(UserWarning, match="no such architecture"):
        got = results(*example(), half=True)
    monkeypatch.undo()
    assert all(map(torch.equal, got, results(*example(), half=True)))


def test_it_is_looked_for_on_cuda_alone_and_not_where_runs_must_repeat(monkeypatch):
    from late_interaction_kernels import maxsim

    assert fused.installed(CPU) is None
    assert fused.installed(torch.device("cuda")) is maxsim
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert fused.installed(torch.device("cuda")) is None


def test_the_stand_in_has_the_packages_signature():
    from late_interaction_kernels.autograd import maxsim

    ours, theirs = (inspect.signature(function) for function in (stand_in(torch.float16), maxsim))
    assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
        (p.name, p.kind, p.default) for p in theirs.parameters.values()
    ]


def test_our_tiles_equal_the_packages_reference(monkeypatch):
    """Its plain-torch definition of the score, through the same hand-over."""
    from late_interaction_kernels.reference import maxsim_reference

    def maxsim(Q, D, q_mask=None, d_mask=None, *, normalize=False, backward=None):
        return maxsim_reference(Q, D, q_mask, d_mask, normalize=normalize)

    monkeypatch.setattr(kernel, "TILE_ELEMENTS", 100)
    image, text, mask, content = example(torch.float64)
    keep = torch.arange(6) < torch.tensor([6, 4, 2, 1, 5])[:, None]
    image.requires_grad_()
    text.requires_grad_()
    own = late_interaction(image, text, mask, content, keep)
    theirs = fused.fused(maxsim, image, text, mask, content, keep)
    for mine, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(mine, other)
        torch.testing.assert_close(
            torch.autograd.grad(mine.square().sum(), (image, text), retain_graph=True),
            torch.autograd.grad(other.square().sum(), (image, text), retain_graph=True),
        )
