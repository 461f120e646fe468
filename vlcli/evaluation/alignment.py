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
    """What a model finds of a text in a picture. `index` (h, w) is the grid of m_k, `similarity` (h, w) that of h_k;
    or, of an R2D2, what layer `layer` of its cross encoder attends to (entity.py); or, with a `method`, a map of
    `layer` of the image tower without indices, from 0 to 1 (gradcam.py). `by_token` (r, h, w) has the map of each of
    the label's tokens."""

    text: Text
    index: npt.NDArray[np.int64] | None
    similarity: npt.NDArray[np.float32]
    layer: int | None = None
    method: str | None = None
    score: float | None = None  # of the whole picture, and what 1 stands for: of a map with a method
    peak: float | None = None
    by_token: npt.NDArray[np.float32] | None = None

    @property
    def parts(self) -> list[npt.NDArray[np.float32]]:
        """The maps of the label's tokens, where they were asked for."""
        return [] if self.by_token is None else list(self.by_token)

    @property
    def on_label(self) -> npt.NDArray[np.bool_]:
        """(h, w) true where m_k is one of the label's positions."""
        assert self.index is not None, "a map without indices"
        return np.isin(self.index, self.text.positions)

    @property
    def share(self) -> float:
        return float(self.on_label.mean())

    def as_json(self) -> dict[str, Any]:
        """The numbers of the figure: everything that is drawn, and nothing that needs the model again."""
        data: dict[str, Any] = {
            "label": self.text.label,
            "prompt": self.text.prompt,
            "tokens": self.text.tokens,
            "label_positions": self.text.positions,
            "grid": list(self.similarity.shape),
        }
        if self.method is not None:
            assert self.score is not None
            assert self.peak is not None
            data |= {"method": self.method, "score": round(self.score, 6), "peak": float(f"{self.peak:.6g}")}
        if self.index is not None:
            data |= {"index": self.index.tolist(), "share_on_label": round(self.share, 6)}
        if self.layer is not None:
            data["layer"] = self.layer
        data["similarity"] = _rounded(self.similarity)
        if self.by_token is not None:
            data["by_token"] = [_rounded(one) for one in self.by_token]
        return data

    @classmethod
    def of_json(cls, data: dict[str, Any]) -> Alignment:
        """What `as_json` wrote, without the text's vectors. KeyError, TypeError or ValueError for anything else."""
        tokens, positions = (
            [str(token) for token in data["tokens"]],
            [int(p) for p in data["label_positions"]],
        )
        text = Text(str(data["label"]), str(data["prompt"]), tokens, positions, torch.empty(len(tokens), 0))
        method = data.get("method")
        index = np.array(data["index"], dtype=np.int64) if method is None else None
        similarity = np.array(data["similarity"], dtype=np.float32)
        grid = tuple(data["grid"])
        places = similarity if index is None else index
        if len(grid) != 2 or places.shape != grid or similarity.shape != grid or not places.size:
            raise ValueError(
                f"a grid of {grid} with {places.shape} indices and {similarity.shape} similarities"
            )
        used = positions if index is None else (*positions, *index.flat)
        if not np.isfinite(similarity).all() or not all(0 <= p < len(tokens) for p in used):
            raise ValueError("an index without a token, or a similarity that is no number")
        by_token = None
        if "by_token" in data:
            by_token = np.array(data["by_token"], dtype=np.float32)
            if by_token.shape != (len(positions), *grid) or not np.isfinite(by_token).all():
                raise ValueError(f"maps of {len(positions)} tokens that are {by_token.shape}")
        layer = data.get("layer")
        return cls(
            text,
            index,
            similarity,
            None if layer is None else int(layer),
            method=None if method is None else str(method),
            score=None if method is None else float(data["score"]),
            peak=None if method is None else float(data["peak"]),
            by_token=by_token,
        )


def _rounded(grid: npt.NDArray[np.float32]) -> list[list[float]]:
    return [[round(float(v), 6) for v in row] for row in grid]


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


def align(patches: torch.Tensor, text: Text, grid: tuple[int, int], *, by_token: bool = False) -> Alignment:
    """Both maps of one image: `patches` (h·w, d) in rows from the top left, `grid` = (h, w)."""
    scores = patches.float() @ text.vectors.T  # (h·w, n)
    index = scores.argmax(1).reshape(grid).numpy()
    words = scores[:, text.positions]  # (h·w, r)
    similarity = words.mean(1).reshape(grid).numpy().astype(np.float32)
    parts = words.T.reshape(-1, *grid).numpy().astype(np.float32) if by_token else None
    return Alignment(text, index.astype(np.int64), similarity, by_token=parts)


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
