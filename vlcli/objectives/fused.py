"""Late interaction by the fused kernels of `late-interaction-kernels`, on CUDA, where they are installed and agree.

They score one direction at a time, multiply in 16 bits and add in float32: so they agree where 16 bits are asked for
(`half`, or tokens of that type), and in float32 our own tiles go on.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

Maxsim = Callable[..., Tensor]
Own = Callable[..., tuple[Tensor, Tensor]]

# What scores and gradients of unit vectors may differ by, by the type of the factors.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def installed(device: torch.device) -> Maxsim | None:
    """The package's `maxsim(Q, D, q_mask, d_mask, *, normalize, backward)`, if it can run there. Its gradients are
    summed in any order: whoever asks torch for determinism gets our own kernel."""
    if device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        return None
    try:
        from late_interaction_kernels import maxsim
    except ImportError:
        return None
    return maxsim


def agreeing(own: Own, device: torch.device, kind: torch.dtype, width: int, half: bool) -> Maxsim | None:
    """The installed kernel, if it says what `own` says of a small example of that type and width."""
    maxsim = installed(device)
    if maxsim is None or kind not in TOLERANCE:
        return None
    return maxsim if _agrees(maxsim, own, device, kind, width, half) else None


@functools.cache
def _agrees(
    maxsim: Maxsim, own: Own, device: torch.device, kind: torch.dtype, width: int, half: bool
) -> bool:
    g = torch.Generator().manual_seed(0)
    image, text = (
        torch.nn.functional.normalize(torch.randn(count, n, width, generator=g), dim=-1).to(device, kind)
        for count, n in ((5, 7), (4, 6))
    )
    text_mask = (torch.arange(6) < torch.tensor([6, 4, 3, 1])[:, None]).to(device)
    content_mask = text_mask.clone()
    content_mask[:3, 0] = False
    weights = torch.randn(2, 5, 4, generator=g).to(device)
    found = []
    try:
        for function in (own, functools.partial(fused, maxsim)):
            factors = [x.clone().requires_grad_() for x in (image, text)]
            with torch.enable_grad():
                scores = function(*factors, text_mask, content_mask, None, half=half)
            gradients = torch.autograd.grad(
                [x.float() for x in scores], factors, list(weights), retain_graph=False
            )
            found.append([*scores, *gradients])
    except Exception as error:  # of a compiler and a driver: anything
        warnings.warn(f"late-interaction-kernels does not run here: {error}", stacklevel=2)
        return False
    tolerance = TOLERANCE[torch.float16 if half else kind]
    return all(
        torch.allclose(x.float(), y.float(), rtol=tolerance, atol=tolerance)
        for x, y in zip(*found, strict=True)
    )


def fused(
    maxsim: Maxsim,
    image: Tensor,
    text: Tensor,
    text_mask: Tensor,
    content_mask: Tensor,
    image_mask: Tensor | None,
    *,
    half: bool = False,
) -> tuple[Tensor, Tensor]:
    """As `late_interaction`, by `maxsim`: the sum over a query's tokens of each one's best score in a document. It
    rounds float32 to fp16 itself, and keeps the gradient from it: `half` is nothing more to do."""
    some_text, some_image = text_mask.any(1), None
    # nothing is scored against an empty document
    words = text_mask | (~some_text[:, None] & (torch.arange(text_mask.shape[1], device=text.device) == 0))
    patches = image_mask
    if image_mask is not None:
        some_image = image_mask.any(1)
        first = torch.arange(image_mask.shape[1], device=image.device) == 0
        patches = image_mask | (~some_image[:, None] & first)
    i2t = maxsim(image, text, image_mask, words, normalize=False, backward="unified")
    t2i = maxsim(text, image, content_mask, patches, normalize=False, backward="unified").T
    of_image = image.shape[1] if image_mask is None else image_mask.sum(1).clamp(min=1)[:, None]
    i2t = (i2t / of_image).where(some_text, 0.0)
    t2i = t2i / content_mask.sum(1).clamp(min=1)
    return i2t, t2i if some_image is None else t2i.where(some_image[:, None], 0.0)
