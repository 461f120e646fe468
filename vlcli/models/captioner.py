"""A captioner: an image tower, and an R2D2's text side made to write from left to right (R2D2 App. C).

The paper says that the decoder starts from the text-image cross encoder. That one reads the text encoder's states, so
the text encoder is part of the decoder, and both attend to earlier tokens alone: if only one of them did, the other
would hand the next word on. As in R2D2's pre-training [CLS] begins a text and [SEP] ends it; no other token is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from vlcli.errors import UsageError
from vlcli.images.preprocess import Preprocess
from vlcli.models.config import CaptionerConfig, TextTowerConfig
from vlcli.models.cross_encoder import CrossEncoder, CrossLayer
from vlcli.models.dropout import number_places
from vlcli.models.encoders import position_offset
from vlcli.models.image_tower import ImageFeatures, TimmTower, grid_of
from vlcli.models.locking import apply_rates, is_locked, keep_locked_in_evaluation
from vlcli.models.r2d2 import MaskHead, image_states
from vlcli.models.text_tower import text_tower
from vlcli.text.model_tokenizers import ModelTokenizer, open_tokenizer, refuse_foreign


class Captioner(nn.Module):
    """`captioner(ids (b, n), pictures)` → logits (b, n, vocabulary): at place t of the token behind it, given the
    picture and the tokens up to t.

    Its parts have the names that a dual encoder's have; `cross` is an R2D2's text-image encoder, `head` its head for
    masked words, whose last layer is the table of embeddings.
    """

    kind = "captioner"
    similarity_kind = "caption"  # in place of what a dual encoder's results name
    reads_tokens = True  # patches are looked at

    def __init__(self, config: CaptionerConfig, tokenizer: ModelTokenizer | None = None) -> None:
        super().__init__()
        self.config = config
        self.preprocess = Preprocess(config.image.preprocess)
        self.image_size = config.image.preprocess.size
        self.image = TimmTower(config.image)
        self.text: Any = text_tower(_left_to_right(config.text))
        self.cross = CrossEncoder(config.text.width, self.image.width, config.cross)
        self.head = MaskHead(config.text.width, config.text.vocabulary, config.cross)
        if tokenizer is None and not self.head.bias.is_meta:  # on the meta device nothing is read
            tokenizer = open_tokenizer(config.text.tokenizer, padding_id=config.text.padding_id)
        if tokenizer is not None:
            refuse_foreign(tokenizer, config.text.vocabulary)
            self.tokenizer = tokenizer
        number_places(self)
        self.rates = apply_rates(self, config)
        self.image_locked, self.text_locked = is_locked(self.image), is_locked(self.text)
        self.checkpoint_hash = ""
        self._grid: tuple[int, int] | None = None
        self.train()

    def train(self, mode: bool = True) -> Captioner:
        """What is locked stays in evaluation mode."""
        super().train(mode)
        keep_locked_in_evaluation(self.image)
        keep_locked_in_evaluation(self.text)
        return self

    @property
    def device(self) -> torch.device:
        return self.head.bias.device

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the patch tokens at the configured image size."""
        if self._grid is None:
            self._grid = grid_of(self.image, self.image_size)
        return self._grid

    @property
    def word_table(self) -> Tensor:
        """The embedding table (vocabulary, width)."""
        return self.text.body.get_input_embeddings().weight

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """ids (B, n) int64 and mask (B, n) bool, n ≤ context, on the model's device."""
        ids, mask = self.tokenizer.encode(texts, length=self.config.text.context)
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)

    def image_features(self, pixels: Tensor) -> ImageFeatures:
        """The image tower's own output; no graph when the tower is locked."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.image_locked):
            return self.image(pixels)

    def pictures(self, features: ImageFeatures) -> Tensor:
        """(b, layers, m, 2 · width): keys and values that the decoder's layers make of each picture, once for all the
        tokens that are written about it."""
        states = image_states(features)
        return torch.stack([layer.other.key_value(states) for layer in self._layers()], 1)

    def states(
        self, ids: Tensor, pictures: Tensor, *, keys: Tensor | None = None, cache: Any = None
    ) -> Tensor:
        """(b, n, width) of ids (b, n), row by row with `pictures` (b, layers, m, 2 · width). keys (b,) decide dropout.

        `cache` is one of transformers' and holds what came before `ids`; it takes them in. Padding stands behind a
        text, where no token of it ever looks: no mask says where it is.
        """
        before = 0 if cache is None else cache.get_seq_length()
        x = self._read(ids, before, cache)
        places = torch.arange(before + ids.shape[1], device=ids.device)
        seen = (places[None] <= places[before:, None])[None]  # (1, n, before + n)
        own_layers = self.config.text.layers
        for number, layer in enumerate(self._layers()):
            own = layer.own.key_value(x)
            if cache is not None:
                halves = (half[:, None] for half in own.chunk(2, -1))
                own = torch.cat(cache.update(*halves, own_layers + number), -1)[:, 0]
            x = layer.other_side(layer.own(x, own, seen, keys), pictures[:, number], None, keys)
        return x

    def logits(self, states: Tensor) -> Tensor:
        """States (…, width) → (…, vocabulary)."""
        return self.head(states, self.word_table)

    def forward(
        self,
        ids: Tensor | None = None,
        pictures: Tensor | None = None,
        *,
        through: Callable[[Captioner], Any] | None = None,
    ) -> Any:
        """With `through`, whatever that function makes of the model: one forward pass to what wraps it for many
        processes."""
        if through is not None:
            return through(self)
        assert ids is not None
        assert pictures is not None
        return self.logits(self.states(ids, pictures))

    def _layers(self) -> Sequence[CrossLayer]:
        return self.cross.layers  # type: ignore[return-value]

    def _read(self, ids: Tensor, before: int, cache: Any) -> Tensor:
        """The text encoder's states of ids that stand behind `before` others."""
        assert before + ids.shape[1] <= self.config.text.context, f"{before + ids.shape[1]} tokens"
        body = self.text.body
        if not len(ids):  # a process without a share of a step
            return body(input_ids=ids.new_full((1, max(1, ids.shape[1])), 0)).last_hidden_state[:0]
        # RoBERTa would count positions over ids that are not its padding id; here they follow from the place alone
        first = position_offset(self.config.text.encoder) + before
        positions = torch.arange(first, first + ids.shape[1], device=ids.device)[None]
        kind: Any = type(body)
        kept = {"use_cache": False} if cache is None else {_name_of_cache(kind): cache, "use_cache": True}
        return body(input_ids=ids, position_ids=positions, **kept).last_hidden_state


def _left_to_right(text: TextTowerConfig) -> TextTowerConfig:
    return text.model_copy(update={"encoder": {**text.encoder, "is_decoder": True}})


@lru_cache
def _name_of_cache(body: Hashable) -> str:
    """What transformers calls a cache, which an earlier version of it called otherwise."""
    forward: Any = body.forward  # type: ignore[attr-defined]
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


@torch.no_grad()
def refuse_unfit_text_encoder(model: Captioner) -> None:
    """UsageError where the text encoder cannot be made to read from left to right, one token after the other, as many
    of transformers' cannot."""
    from transformers import DynamicCache

    training = model.training
    model.eval()
    ids = torch.zeros(2, 3, dtype=torch.int64, device=model.device)
    ids[1, 2] = 1
    try:
        hidden, cache = model._read(ids, 0, None), DynamicCache()
        parts = [model._read(ids[:, :2], 0, cache), model._read(ids[:, 2:], 2, cache)]
        fits = torch.allclose(hidden[0, :2], hidden[1, :2], atol=1e-4)
        fits = fits and torch.allclose(hidden, torch.cat(parts, 1), atol=1e-4)
    except (TypeError, AttributeError):
        fits = False
    finally:
        model.train(training)
    if not fits:
        kind = model.config.text.encoder["model_type"]
        raise UsageError(f"a text encoder of type {kind!r} does not read from left to right: it cannot write")
