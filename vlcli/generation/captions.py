"""Captions of pictures: a captioner's tokens, one after the other, by the search of transformers (R2D2 App. C)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin, LogitsProcessor, PretrainedConfig, PreTrainedModel
from transformers.generation import TemperatureLogitsWarper, TopPLogitsWarper
from transformers.modeling_outputs import CausalLMOutputWithPast

from vlcli.errors import UsageError
from vlcli.models.captioner import Captioner
from vlcli.models.dropout import pair_key


@dataclass(frozen=True)
class Decoding:
    """How a caption is found: its likeliest token each time ("greedy"), the likeliest of `beams` texts that are
    followed at once, or drawn ("sample"), by `temperature`, from the likeliest tokens that have `top_p` of the
    probability together.

    Lengths are tokens without [CLS] and [SEP]; no `max_length`: as long as the model can read. A `repetition_penalty`
    above 1 divides the (positive) logits of tokens that stand in the caption already. UsageError for what cannot be.
    """

    way: Literal["greedy", "beam", "sample"] = "greedy"
    beams: int = 3
    min_length: int = 1
    max_length: int | None = None
    top_p: float = 1.0
    temperature: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def longest(self, model: Captioner) -> int:
        """Tokens of a caption at most."""
        room = model.config.text.context - 2
        longest = room if self.max_length is None else self.max_length
        if longest > room:
            raise UsageError(
                f"a caption of up to {longest} tokens: the model reads {room}, beside where a text begins and ends"
            )
        if self.min_length > longest:
            raise UsageError(f"a caption of at least {self.min_length} and at most {longest} tokens")
        return longest


class Caption(NamedTuple):
    """What is said of a picture. `score`: the mean log-probability of its tokens and of its end, as the model alone has
    it, whatever the search did to them."""

    text: str
    ids: list[int]  # without [CLS] and [SEP]
    score: float


@torch.no_grad()
def captions(
    model: Captioner, pixels: Tensor, decoding: Decoding, numbers: Sequence[int], *, use_cache: bool = True
) -> list[Caption]:
    """A caption of each of `pixels` (b, 3, h, w), of a model in evaluation mode.

    `numbers` (b,) are the pictures' own, from which and from the seed tokens are drawn: what is written of a picture
    does not depend on those beside it. `use_cache=False` computes all tokens anew at every step.
    """
    pictures = model.pictures(model.image_features(pixels))
    return captions_of(model, pictures, decoding, numbers, use_cache=use_cache)


@torch.no_grad()
def captions_of(
    model: Captioner, pictures: Tensor, decoding: Decoding, numbers: Sequence[int], *, use_cache: bool = True
) -> list[Caption]:
    """`captions` of what the model sees of its pictures (b, n1, c)."""
    longest, tokenizer = decoding.longest(model), model.tokenizer
    begin, end = tokenizer.cls_id, tokenizer.sep_id
    if begin < 0 or end < 0:
        raise UsageError("the tokenizer has no tokens that begin and end a text: nothing says when to stop")
    # an embedding table may have rows to spare
    spare = range(tokenizer.vocab_size, model.config.text.vocabulary)
    settings = GenerationConfig(
        do_sample=False,
        num_beams=decoding.beams if decoding.way == "beam" else 1,
        min_new_tokens=decoding.min_length,
        max_new_tokens=longest + 1,
        forced_eos_token_id=end,
        repetition_penalty=decoding.repetition_penalty,
        suppress_tokens=sorted({*tokenizer.unwritten_ids, *spare}),
        bos_token_id=begin,
        eos_token_id=end,
        pad_token_id=tokenizer.pad_id,
        use_cache=use_cache,
    )
    written = _Writer(model).generate(
        torch.full((len(pictures), 1), begin, device=model.device),
        generation_config=settings,
        pictures=pictures,
        logits_processor=drawing(decoding, numbers) if decoding.way == "sample" else [],
    )
    found = [_until(row, end) for row in written[:, 1:].tolist()]
    return [
        Caption(tokenizer.text(ids), ids, score)
        for ids, score in zip(found, scores(model, pictures, found), strict=True)
    ]


@torch.no_grad()
def scores(model: Captioner, pictures: Tensor, found: Sequence[Sequence[int]]) -> list[float]:
    """The mean log-probability of the tokens of each text, and of its end, given its row of `pictures`."""
    begin, end = model.tokenizer.cls_id, model.tokenizer.sep_id
    longest = max(map(len, found)) + 1
    ids = torch.full((len(found), longest + 1), model.tokenizer.pad_id, device=model.device)
    lengths = torch.tensor([len(text) + 1 for text in found], device=model.device)
    for row, text in zip(ids, found, strict=True):
        row[: len(text) + 2] = torch.tensor([begin, *text, end])
    logits = model(ids[:, :-1], pictures).float()
    chosen = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    real = torch.arange(longest, device=model.device) < lengths[:, None]
    return (chosen.where(real, 0.0).sum(1) / lengths).tolist()


def _until(row: list[int], end: int) -> list[int]:
    return row[: row.index(end)] if end in row else row


class _Writer(PreTrainedModel, GenerationMixin):
    """A captioner as transformers' search wants a model: tokens in, logits of the next one out."""

    config_class = PretrainedConfig
    main_input_name = "input_ids"

    def __init__(self, captioner: Captioner) -> None:
        layers = captioner.config.text.layers + captioner.config.cross.layers
        vocabulary = captioner.config.text.vocabulary
        config = PretrainedConfig()
        config.vocab_size, config.num_hidden_layers = vocabulary, layers  # the cache has as many
        super().__init__(config)
        self.captioner = captioner

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *_: Any, pictures: Tensor, cache: Any = None, **others: Any
    ) -> dict[str, Any]:
        """What `forward` reads: of tokens those that the cache, which had another name once, has not seen."""
        cache = others.get("past_key_values") if cache is None else cache
        seen = 0 if cache is None else cache.get_seq_length()
        return {"input_ids": input_ids[:, seen:], "pictures": pictures, "cache": cache}

    def forward(
        self, input_ids: Tensor, pictures: Tensor, cache: Any = None, **_: Any
    ) -> CausalLMOutputWithPast:
        states = self.captioner.states(input_ids, pictures, cache=cache)[:, -1:]
        return CausalLMOutputWithPast(logits=self.captioner.logits(states))


class _Drawn(LogitsProcessor):
    """Makes the likeliest token one that is drawn: the logarithms of probabilities, and Gumbel's noise from a generator
    of each row's own, have their maximum at a token as often as it is probable."""

    def __init__(self, seed: int, numbers: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(pair_key(seed, number)) for number in numbers]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        drawn = [
            torch.empty(scores.shape[1]).exponential_(generator=generator) for generator in self.generators
        ]
        return scores - torch.stack(drawn).clamp(min=1e-30).log().to(scores.device)


def drawing(decoding: Decoding, numbers: Sequence[int]) -> list[LogitsProcessor]:
    """What makes the search for the likeliest token a draw, the same for a row whatever the others."""
    found: list[Any] = []
    if decoding.temperature != 1:
        found.append(TemperatureLogitsWarper(decoding.temperature))
    if decoding.top_p < 1:
        found.append(TopPLogitsWarper(decoding.top_p))
    return [*found, _Drawn(decoding.seed, numbers)]
