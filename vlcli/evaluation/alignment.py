"""Word–patch alignment of a token-wise model (FILIP §4.5, Wukong §5.4), and the similarity map beside it.

For patch k of an image and the tokens r of a text, all L2-normalised, with scores V[k]·T[r]:

    m_k = argmax over all non-padded tokens r, [CLS] and [SEP] included        the papers' figure
    h_k = mean over the label's tokens of V[k]·T[r]                           the heat map

The first shows what late interaction matched; the second where the label's words are most at home. They
differ: an image token may prefer [SEP] everywhere and still score the name highest on the right object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vlcli.errors import UsageError
from vlcli.evaluation.embed import inference, to_cpu


@dataclass(frozen=True)
class Text:
    """An encoded prompt: `tokens` without padding, the positions of the label in it, their vectors (n, d). A global
    model has one vector for the whole prompt, which is then the only token."""

    label: str
    prompt: str
    tokens: list[str]
    positions: list[int]
    vectors: torch.Tensor


@dataclass(frozen=True)
class Alignment:
    """`index` (h, w) is the grid of m_k, `similarity` (h, w) that of h_k; or, of an R2D2, what layer `layer` of its
    cross encoder attends to (entity.py)."""

    text: Text
    index: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]
    layer: int | None = None

    @property
    def on_label(self) -> npt.NDArray[np.bool_]:
        """(h, w) true where m_k is one of the label's positions."""
        return np.isin(self.index, self.text.positions)

    @property
    def share(self) -> float:
        return float(self.on_label.mean())

    def as_json(self) -> dict[str, Any]:
        """The indices of the figure: everything that is drawn, and nothing that needs the model again."""
        return {
            "label": self.text.label,
            "prompt": self.text.prompt,
            "tokens": self.text.tokens,
            "label_positions": self.text.positions,
            "grid": list(self.index.shape),
            "index": self.index.tolist(),
            "share_on_label": round(self.share, 6),
            **({} if self.layer is None else {"layer": self.layer}),
            "similarity": [[round(float(v), 6) for v in row] for row in self.similarity],
        }

    @classmethod
    def of_json(cls, data: dict[str, Any]) -> Alignment:
        """What `as_json` wrote, without the text's vectors. KeyError, TypeError or ValueError for anything else."""
        tokens, positions = (
            [str(token) for token in data["tokens"]],
            [int(p) for p in data["label_positions"]],
        )
        text = Text(str(data["label"]), str(data["prompt"]), tokens, positions, torch.empty(len(tokens), 0))
        index = np.array(data["index"], dtype=np.int64)
        similarity = np.array(data["similarity"], dtype=np.float32)
        grid = tuple(data["grid"])
        if len(grid) != 2 or index.shape != grid or similarity.shape != grid or not index.size:
            raise ValueError(
                f"a grid of {grid} with {index.shape} indices and {similarity.shape} similarities"
            )
        if not np.isfinite(similarity).all() or not all(
            0 <= p < len(tokens) for p in (*positions, *index.flat)
        ):
            raise ValueError("an index without a token, or a similarity that is no number")
        layer = data.get("layer")
        return cls(text, index, similarity, None if layer is None else int(layer))


def require_tokens(model: Any) -> None:
    """UsageError unless the model compares patches with words."""
    if model.similarity_kind != "tokenwise":
        raise UsageError(
            f"the checkpoint's similarity is {model.similarity_kind}: it compares "
            + ("one vector an image" if model.similarity_kind == "global" else "reduced tokens, not patches,")
            + " with the text, so no word can be laid on a patch",
            remedy='train with similarity = "tokenwise"',
        )


def encode_label(model: Any, label: str, prompt: str = "{}") -> Text:
    """`label` inside `prompt` (the bare label is Wukong's way), its positions found by sub-sequence match.

    Raises UsageError when the label has no tokens, or does not fit into the model's context.
    """
    if prompt.count("{}") != 1:
        raise UsageError(f"the prompt {prompt!r} needs exactly one '{{}}' for the label")
    filled = prompt.replace("{}", label, 1)
    ids, mask = model.tokenize([filled])
    length = int(mask.sum())
    plain = ids[0, :length].tolist()
    places = model.tokenizer.find(plain, label)
    if not places or not places[0]:
        cause = "has no tokens" if not label.strip() else "is longer than the model's context"
        shown = label if len(label) <= 40 else label[:40] + "…"
        raise UsageError(f"the text {shown!r} {cause}")
    with torch.no_grad(), inference(model):
        features = to_cpu(model.encode_text(ids, mask))
    if features.tokens is None:
        return Text(label, filled, [filled], [0], features.pooled)
    positions = sorted({place for found in places for place in found})
    return Text(label, filled, model.tokenizer.tokens(plain), positions, features.tokens[0, :length])


def align(patches: torch.Tensor, text: Text, grid: tuple[int, int]) -> Alignment:
    """Both maps of one image: `patches` (h·w, d) in rows from the top left, `grid` = (h, w)."""
    scores = patches.float() @ text.vectors.T  # (h·w, n)
    index = scores.argmax(1).reshape(grid).numpy()
    similarity = scores[:, text.positions].mean(1).reshape(grid).numpy()
    return Alignment(text, index.astype(np.int64), similarity.astype(np.float32))


def encode_patches(
    model: Any, pixels: torch.Tensor, precision: str = "fp32"
) -> tuple[torch.Tensor, tuple[int, int]]:
    """Patch tokens (b, h·w, d) of `pixels` (b, 3, H, W), square, and their grid."""
    require_tokens(model)
    with torch.no_grad(), inference(model, precision):
        tokens = to_cpu(model.encode_image(pixels.to(model.device))).tokens
    side = round(tokens.shape[1] ** 0.5)
    assert side * side == tokens.shape[1], f"{tokens.shape[1]} tokens of a square picture are no square grid"
    return tokens, (side, side)
