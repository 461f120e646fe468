"""The dual encoder: two towers, a joint space, a similarity (Wukong §4, FILIP §3.1, ALIGN §4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vlcli.errors import UsageError
from vlcli.images.preprocess import Preprocess
from vlcli.models.config import DualEncoderConfig, ProjectionConfig
from vlcli.models.dropout import Dropout, number_places
from vlcli.models.image_tower import ImageFeatures, TimmTower, grid_of
from vlcli.models.locking import apply_rates, is_locked, keep_locked_in_evaluation
from vlcli.models.patch_mask import patch_width
from vlcli.models.r2d2 import Ranking
from vlcli.models.text_passes import at_place, hidden_states, pooled_states
from vlcli.models.text_tower import TextHead, text_tower
from vlcli.models.token_reduction import Reduced, token_reduction
from vlcli.objectives.late_interaction import Similarity, global_similarity, late_interaction, zero_padding
from vlcli.text.model_tokenizers import ModelTokenizer, open_tokenizer, refuse_foreign

T = TypeVar("T", bound="ImageTokens | TextTokens")


class ImageTokens(NamedTuple):
    """Images in the joint space, L2-normalised: pooled (b, d) of a global model, else tokens (b, n1, d): all patches
    of a token-wise model, the reduced tokens of a reduced one."""

    tokens: Tensor | None
    pooled: Tensor | None

    def rows(self, index: Any) -> ImageTokens:
        tokens, pooled = (None if x is None else x[index] for x in self)
        return ImageTokens(tokens, pooled)


class TextTokens(NamedTuple):
    """Texts in the joint space, L2-normalised: pooled (B, d) of a global model, else tokens (B, n2, d).

    mask (B, n2): not padding; content_mask (B, n2): neither padding nor [CLS] nor [SEP].
    """

    tokens: Tensor | None
    mask: Tensor
    content_mask: Tensor
    pooled: Tensor | None

    def rows(self, index: Any) -> TextTokens:
        return TextTokens(
            None if self.tokens is None else self.tokens[index],
            self.mask[index],
            self.content_mask[index],
            None if self.pooled is None else self.pooled[index],
        )


def cat(parts: Sequence[T]) -> T:
    """Join encoded images, or encoded texts (padded to the longest), along the batch."""
    first = parts[0]
    fields: list[Any] = []
    for name, values in zip(first._fields, zip(*parts, strict=True), strict=True):
        if values[0] is None:
            fields.append(None)
        elif isinstance(first, TextTokens) and name != "pooled":
            longest = max(v.shape[1] for v in values)
            fields.append(torch.cat([_pad(v, longest) for v in values]))
        else:
            fields.append(torch.cat(list(values)))
    return type(first)(*fields)


def _pad(x: Tensor, length: int) -> Tensor:
    """Lengthen dimension 1 by zeros (false for masks)."""
    missing = length - x.shape[1]
    return F.pad(x, [0, 0] * (x.dim() - 2) + [0, missing]) if missing else x


class MLP(nn.Sequential):
    """Layers in a row, of which the dropouts read the pairs' keys."""

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        for layer in self:
            x = layer(x, keys) if isinstance(layer, Dropout) else layer(x)
        return x


def projection(width: int, dim: int, config: ProjectionConfig, side: str) -> nn.Module:
    """Into the joint space: linear (Wukong, FILIP; with bias ALIGN), nothing, or a small MLP with a norm in front."""
    if config.kind == "none":
        if width != dim:
            raise UsageError(f'{side}_projection = "none": the tower is {width} wide, the joint space {dim}')
        return nn.Identity()
    if config.kind == "linear":
        layer = nn.Linear(width, dim, bias=config.bias)
        nn.init.normal_(layer.weight, std=width**-0.5)
        if config.bias:
            nn.init.zeros_(layer.bias)
        return layer
    return MLP(
        nn.LayerNorm(width),
        Dropout(config.dropout),
        nn.Linear(width, config.hidden),
        nn.GELU(),
        Dropout(config.dropout),
        nn.Linear(config.hidden, dim),
    )


class DualEncoder(nn.Module):
    """`encode_image`, `encode_text` and `similarity` in one joint space; see `vlcli.load`.

    `tokenizer` gives ids; `checkpoint_hash` is set by the loader.
    """

    @property
    def kind(self) -> str:
        """What its checkpoints are called: an R2D2 is a dual encoder with a ranking part."""
        return self.config.kind

    def __init__(self, config: DualEncoderConfig, tokenizer: ModelTokenizer | None = None) -> None:
        super().__init__()
        self.config = config
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature.init)))
        if tokenizer is None and not self.log_scale.is_meta:  # on the meta device nothing is read
            tokenizer = open_tokenizer(config.text.tokenizer, padding_id=config.text.padding_id)
        if tokenizer is not None:
            refuse_foreign(tokenizer, config.text.vocabulary)
            self.tokenizer = tokenizer
        self.preprocess = Preprocess(config.image.preprocess)
        self.image_size = config.image.preprocess.size
        self.image = TimmTower(config.image)
        self.text = text_tower(config.text)
        self.text_head = None if config.text.head is None else TextHead(config.text.width, config.text.head)
        self.image_projection = projection(self.image.width, config.dim, config.image_projection, "image")
        self.text_projection = projection(
            config.text.output_width, config.dim, config.text_projection, "text"
        )
        self.reduction = (
            token_reduction(self.image.width, config.dim, config.reduction)
            if config.similarity == "reduced"
            else None
        )
        self.ranking = (
            None
            if config.ranking is None
            else Ranking(config.text.width, self.image.width, config.text.vocabulary, config.ranking)
        )
        self.patch_mask = nn.Parameter(torch.zeros(patch_width(self.image))) if config.patch_mask else None
        number_places(self)
        self.rates = apply_rates(self, config)
        self.image_locked, self.text_locked = is_locked(self.image), is_locked(self.text)
        self.checkpoint_hash = ""
        self.in_one_pass = (
            False  # texts of all lengths together, for processes that must all call a layer as often
        )
        self._grid: tuple[int, int] | None = None
        self.train()

    def train(self, mode: bool = True) -> DualEncoder:
        """What is locked stays in evaluation mode: no dropout, no batch statistics."""
        super().train(mode)
        keep_locked_in_evaluation(self.image)
        keep_locked_in_evaluation(self.text)
        return self

    @property
    def similarity_kind(self) -> str:
        return self.config.similarity

    @property
    def reads_tokens(self) -> bool:
        """Whether anything but an image's pooled vector is read of its tower."""
        return self.config.similarity != "global" or self.ranking is not None

    @property
    def device(self) -> torch.device:
        return self.log_scale.device

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the patch tokens at the configured image size."""
        if self._grid is None:
            self._grid = grid_of(self.image, self.image_size)
        return self._grid

    def scale(self) -> Tensor:
        """1/τ, at most `temperature.max_scale`."""
        return self.log_scale.exp().clamp(max=self.config.temperature.max_scale)

    @torch.no_grad()
    def bound_scale_(self) -> None:
        """Bring the parameter back under `max_scale`. Beyond it `scale()` passes no gradient, and a temperature that
        one step pushed there would stay there for ever. A hair below, so that rounding does not put it beyond."""
        if self.log_scale.requires_grad:
            self.log_scale.clamp_(max=math.log(self.config.temperature.max_scale) - 1e-6)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """ids (B, n) int64 and mask (B, n) bool, n ≤ context, on the model's device."""
        ids, mask = self.tokenizer.encode(texts, length=self.config.text.context)
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)

    def preprocess_image(self, picture: Image.Image, size: int | None = None) -> Tensor:
        """(3, size, size) float32 of a picture, at the configured size when none is given."""
        return (self.preprocess if size is None else Preprocess(self.config.image.preprocess, size=size))(
            picture
        )

    def image_features(self, pixels: Tensor, *, pooled_only: bool = False) -> ImageFeatures:
        """The image tower's own output, or as much of it as its pooled vector takes; no graph when the tower is
        locked."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.image_locked):
            return self.image(pixels, pooled_only=pooled_only)

    def project_image(self, features: ImageFeatures, keys: Tensor | None = None) -> ImageTokens:
        """Features of the image tower into the joint space. A global model reads only `pooled`."""
        if self.config.similarity == "global":
            return ImageTokens(None, _unit(self.image_vector(features, keys)))
        if self.reduction is None:
            return ImageTokens(_unit(_project(self.image_projection, features.tokens, keys)), None)
        return ImageTokens(_unit(self.reduce(features, keys).tokens), None)

    def image_vector(self, features: ImageFeatures, keys: Tensor | None = None) -> Tensor:
        """The vector that stands for a picture (b, d), not normalised."""
        return _project(self.image_projection, features.pooled, keys)

    def reduce(self, features: ImageFeatures, keys: Tensor | None = None) -> Reduced:
        """What token reduction makes of a tower's features: `tokens` (b, n', d) in the joint space, not normalised;
        `values` as the layer weighed them, in the joint space ("released") or before the projection ("paper")."""
        assert self.reduction is not None, f"a {self.config.similarity} model reduces no tokens"
        if self.reduction.after_projection:
            return self.reduction(_project(self.image_projection, features.tokens, keys))
        reduced = self.reduction(features.tokens)
        return reduced._replace(tokens=_project(self.image_projection, reduced.tokens, keys))

    def encode_image(self, pixels: Tensor) -> ImageTokens:
        """pixels (b, 3, h, w) → the joint space."""
        pooled_only = self.config.similarity == "global"
        return self.project_image(self.image_features(pixels, pooled_only=pooled_only))

    def content_mask(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, n): what is neither padding nor [CLS] nor [SEP]."""
        return mask & (ids != self.tokenizer.cls_id) & (ids != self.tokenizer.sep_id)

    def encode_text(self, ids: Tensor, mask: Tensor, keys: Tensor | None = None) -> TextTokens:
        """ids and mask (B, n) → the joint space. A global model's vector stands where `text.pooling` says."""
        content = self.content_mask(ids, mask)
        if self.config.similarity == "global":
            state = self.text_state(ids, mask, keys)
            return TextTokens(None, mask, content, _unit(_project(self.text_projection, state, keys)))
        hidden = self.text_states(ids, mask, keys)
        return TextTokens(_unit(self.project_text(hidden, keys)), mask, content, None)

    def text_state(self, ids: Tensor, mask: Tensor, keys: Tensor | None = None) -> Tensor:
        """The state (B, c) that stands for each text, before the projection: what a student learns from a teacher
        (AltCLIP §3.1)."""
        pooling, end = self.config.text.pooling, self.tokenizer.sep_id
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.text_locked):
            pooled = pooled_states(
                self.text, ids, mask, keys, pooling=pooling, end=end, in_one_pass=self.in_one_pass
            )
        return pooled if self.text_head is None else self.text_head(pooled)

    def text_states(self, ids: Tensor, mask: Tensor, keys: Tensor | None = None) -> Tensor:
        """Hidden states (B, n, c) of the text tower."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.text_locked):
            return hidden_states(self.text, ids, mask, keys, in_one_pass=self.in_one_pass)

    def text_vector(self, hidden: Tensor, ids: Tensor, mask: Tensor, keys: Tensor | None = None) -> Tensor:
        """The vector that stands for a text, out of its hidden states (B, n, c): (B, d), not normalised."""
        pooling, end = self.config.text.pooling, self.tokenizer.sep_id
        return self.project_text(at_place(hidden, ids, mask, pooling=pooling, end=end), keys)

    def project_text(self, hidden: Tensor, keys: Tensor | None = None) -> Tensor:
        """Hidden states of the text tower (…, c) into the joint space (…, d), not normalised."""
        if self.text_head is not None:
            hidden = self.text_head(hidden)
        return _project(self.text_projection, hidden, keys)

    def similarity(self, image: ImageTokens, text: TextTokens, *, half: bool = False) -> Similarity:
        """i2t and t2i, both (b, B), float32: row = image, column = text. `half`: tokens are multiplied in fp16."""
        if self.config.similarity == "global":
            assert image.pooled is not None
            assert text.pooled is not None
            return global_similarity(image.pooled, text.pooled)
        assert image.tokens is not None
        assert text.tokens is not None
        tokens, mask = text.tokens, text.mask
        content = text.content_mask if self.config.t2i_special_tokens == "exclude" else mask
        if self.config.i2t_padding == "zero" and not self.training:
            padded = mask.sum(1) < self.config.text.context
            tokens, mask, content = zero_padding(tokens, mask, content, padded)
        return late_interaction(image.tokens, tokens, mask, content, half=half)

    @property
    def word_table(self) -> Tensor:
        """The embedding table (vocabulary, c) of an encoder of transformers."""
        body: Any = self.text.body
        return body.get_input_embeddings().weight

    def forward(
        self,
        ids: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        pixels: Tensor | None = None,
        features: ImageFeatures | None = None,
        keys: Tensor | None = None,
        through: Callable[[DualEncoder], Any] | None = None,
    ) -> Any:
        """Both sides of a batch and 1/τ, from pixels or from features the (locked) tower gave before. keys (b,) int64
        are the pairs' own, for dropout.

        With `through`, whatever that function makes of the model: one forward pass to what wraps it for many processes.
        """
        if through is not None:
            return through(self)
        assert ids is not None
        assert mask is not None
        if features is None:
            assert pixels is not None
            features = self.image_features(pixels, pooled_only=self.config.similarity == "global")
        return self.project_image(features, keys), self.encode_text(ids, mask, keys), self.scale()


def _project(layer: nn.Module, x: Tensor, keys: Tensor | None) -> Tensor:
    return layer(x, keys) if isinstance(layer, MLP) else layer(x)


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def trainable_report(model: nn.Module) -> dict[str, dict[str, int]]:
    """Parameters and trainable parameters of each part: what proves the freezing matrix (spec §2.4)."""
    report: dict[str, dict[str, int]] = {}
    for name, parameter in model.named_parameters():
        part = report.setdefault(name.split(".")[0], {"parameters": 0, "trainable": 0})
        part["parameters"] += parameter.numel()
        part["trainable"] += parameter.numel() if parameter.requires_grad else 0
    return report
