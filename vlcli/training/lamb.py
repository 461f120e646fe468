"""LAMB as FILIP and Wukong trained with it: the public `cybertronai/pytorch-lamb`, which FILIP names.

It is not the LAMB of apex and timm. For every tensor w with gradient g, decayed or not:

    m ← β₁ m + (1 − β₁) g      v ← β₂ v + (1 − β₂) g²            no bias correction
    u = m / (√v + ε) + λ w                                       decay before the ratio
    w ← w − η · min(‖w‖, 10) / ‖u‖ · u                           ratio 1 where a length is zero

The bound of 10 on ‖w‖ is felt: an embedding of 21,128 × 768 drawn with 0.02 has length 80, so that without
the bound its steps would be eight times as long. Gradients are not clipped in here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

WEIGHT_NORM_BOUND = 10.0


class Lamb(torch.optim.Optimizer):
    """`params` are tensors or groups; `lr`, `betas`, `eps` and `weight_decay` may differ by group.

    `bound` is the largest length of a tensor that its ratio sees; `math.inf` for the LAMB of You et al.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        bound: float = WEIGHT_NORM_BOUND,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "bound": bound}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; tensors without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)
        return loss

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        beta1, beta2 = group["betas"]
        first = state["exp_avg"].lerp_(gradient, 1 - beta1)
        second = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        update = first / (second.sqrt() + group["eps"])
        if group["weight_decay"]:
            update.add_(weight, alpha=group["weight_decay"])
        length, travel = weight.norm().clamp(max=group["bound"]), update.norm()
        # On the device: asking whether a length is zero would wait for it.
        ratio = torch.where((length > 0) & (travel > 0), length / travel, 1.0)
        weight.sub_(group["lr"] * ratio * update)
