"""A text encoder as a diffusion model reads it: a state for each place of a text, up to the encoder's length.

As in Stable Diffusion every text has the same length: behind its end stands padding, which the encoder's own attention
does not see, and whose states the UNet reads like the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from vlcli.errors import UsageError
from vlcli.models.checkpoint import load, load_text_encoder
from vlcli.models.diffusion_directory import tensors_hash
from vlcli.models.dual import DualEncoder
from vlcli.models.key_values_config import States
from vlcli.models.quickcheck import kind_of
from vlcli.models.text_encoder import TextEncoder

TEXT_SIDE = ("text.", "text_head.", "text_projection.")


class Conditioner:
    """`conditioner(ids, mask)` → states (B, length, width), without a gradient. `encoder` is frozen, and in evaluation
    mode.

    `states` "head": the tower's, behind its head where it has one (AltCLIP: LayerNorm, then to CLIP's width).
    "head-without-norm": behind the head's fully connected layer alone. "projected": further into the joint space.
    """

    def __init__(self, encoder: DualEncoder | TextEncoder, states: States = "head") -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        self.states = states
        self.length = encoder.config.text.context
        if states not in self.widths:
            raise UsageError(
                f"diffusion.states = {states!r}: the text encoder has none",
                remedy=f"there are: {', '.join(self.widths)}",
            )
        self.width = self.widths[states]
        text = encoder.config.text.model_dump(
            mode="json",
            include={"kind", "encoder", "heads", "activation", "eps", "head", "context", "padding_id"},
        )
        tensors = {name: x for name, x in encoder.state_dict().items() if name.startswith(TEXT_SIDE)}
        self.fingerprint = tensors_hash(tensors, text)

    @property
    def widths(self) -> dict[str, int]:
        """What the encoder can give, and how wide it is."""
        config = self.encoder.config
        found = {"head": config.text.output_width}
        if config.text.head is not None:
            found["head-without-norm"] = config.text.output_width
        if config.dim is not None:
            found["projected"] = config.dim
        return {name: found[name] for name in get_args(States) if name in found}

    @property
    def device(self) -> torch.device:
        return self.encoder.device

    def to(self, device: torch.device) -> Conditioner:
        self.encoder.to(device)
        return self

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """ids and mask (B, length) of texts; a longer one is cut."""
        return self.pad(*self.encoder.tokenize(texts))

    def pad(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Lengthen ids and mask (B, n) to the encoder's length."""
        missing = self.length - ids.shape[1]
        return F.pad(ids, (0, missing), value=self.encoder.tokenizer.pad_id), F.pad(mask, (0, missing))

    @torch.no_grad()
    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        assert ids.shape[1] == self.length, f"{ids.shape[1]} tokens of {self.length}"
        encoder: Any = self.encoder
        hidden = encoder.text(ids, mask)
        if encoder.text_head is not None:
            bare = self.states == "head-without-norm"
            hidden = encoder.text_head.fc(hidden) if bare else encoder.text_head(hidden)
        if self.states == "projected":
            hidden = encoder.text_projection(hidden)
        return hidden

    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """States (B, length, width) of texts as they are written."""
        return self(*self.tokenize(texts))


def open_encoder(path: str) -> DualEncoder | TextEncoder:
    """The text encoder of a run, of a checkpoint with a text side, or of a foreign one. UsageError for others."""
    if kind_of(path) == TextEncoder.kind:
        return load_text_encoder(path)
    return load(path)
