"""Encode pictures and texts in batches; features that would fill the memory live in a nameless file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from vlcli.errors import InputError, UsageError
from vlcli.images.decode import decode

if TYPE_CHECKING:
    from vlcli.evaluation.feature_cache import FeatureCache
    from vlcli.evaluation.retrieval import SimilarityFunction
    from vlcli.models.dual import ImageTokens, TextTokens

Progress = Callable[[int], None]  # told how many rows are done since the last call

SPOOL_ABOVE = 1 << 30  # bytes of one feature tensor that stay in memory


class Pictures(Protocol):
    """What `embed_images` reads: a PairTable, or anything with these two."""

    def __len__(self) -> int: ...
    def image_bytes(self, i: int) -> bytes: ...


class _Bytes:
    """A sequence of encoded pictures in memory as `Pictures`."""

    def __init__(self, pictures: Sequence[bytes]) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def image_bytes(self, i: int) -> bytes:
        return self.pictures[i]


def inference(model: Any, precision: str = "fp32") -> Any:
    """The context a forward pass runs in: bf16 or fp16 autocast, or nothing. UsageError for another precision."""
    types = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in types:
        raise UsageError(f"--precision {precision!r} is none of {', '.join(types)}")
    if (kind := types[precision]) is not None:
        return torch.autocast(torch.device(model.device).type, dtype=kind)
    return nullcontext()


def decode_row(source: Any, row: int) -> Any:
    """The PIL picture of a row; InputError names the row's id where it is damaged."""
    try:
        return decode(source.image_bytes(row))
    except ValueError as error:  # an InputError names the reference, and not yet whose it is
        ids = getattr(source, "ids", None)
        where = f"image of {ids[row]}" if ids is not None else f"image {row}"
        raise InputError(f"{where}: {error}", file=str(getattr(source, "source", ""))) from error


def image_batches(
    model: Any,
    source: Pictures | Sequence[bytes],
    rows: Sequence[int] | None = None,
    *,
    batch_size: int = 64,
    precision: str = "fp32",
    progress: Progress | None = None,
    cache: FeatureCache | None = None,
    what: str = "image",
) -> Iterator[ImageTokens]:
    """The features of `rows` of `source` (default all), float32 on the CPU, `batch_size` at a time. `what` they are
    of, to a cache: other features than `image`, which the cache's model makes of a picture, are a vector each."""
    pictures: Any = source if hasattr(source, "image_bytes") else _Bytes(source)
    rows = range(len(pictures)) if rows is None else rows

    def encode(part: Sequence[int]) -> ImageTokens:
        pixels = torch.stack([model.preprocess(decode_row(pictures, row)) for row in part])  # (b, 3, h, w)
        with torch.no_grad(), inference(model, precision):
            return to_cpu(model.encode_image(pixels.to(model.device)))

    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        yield encode(part) if cache is None else _kept_images(cache, encode, pictures, part, what)
        if progress is not None:
            progress(len(part))


def _kept_images(
    cache: FeatureCache,
    encode: Callable[[Sequence[int]], ImageTokens],
    pictures: Any,
    part: Sequence[int],
    what: str,
) -> ImageTokens:
    """What `encode(part)` gives, of which the cache has some or all."""
    from vlcli.evaluation.feature_cache import key_of
    from vlcli.models.dual import ImageTokens

    pooled = what != "image" or cache.similarity == "global"

    def compute(places: list[int]) -> list[Any]:
        features = encode([part[place] for place in places])
        vectors: Any = features.pooled if pooled else features.tokens
        return [vector.reshape(-1, vector.shape[-1]) for vector in vectors.numpy()]

    lists = cache.lists(what, [key_of(pictures.image_bytes(row)) for row in part], compute)
    vectors = torch.from_numpy(np.stack(lists))  # (b, n1, d)
    return ImageTokens(None, vectors[:, 0]) if pooled else ImageTokens(vectors, None)


def embed_images(
    model: Any,
    source: Pictures | Sequence[bytes],
    rows: Sequence[int] | None = None,
    **options: Any,
) -> ImageTokens:
    """Image features of `rows` of a PairTable or of encoded pictures, on the CPU in float32; `options` are those of
    `image_batches`.

    Raises InputError for a picture that does not decode.
    """
    count = len(source) if rows is None else len(rows)
    return collect(image_batches(model, source, rows, **options), count)


def embed_texts(
    model: Any,
    texts: Sequence[str],
    *,
    batch_size: int = 256,
    precision: str = "fp32",
    progress: Progress | None = None,
    cache: FeatureCache | None = None,
) -> TextTokens:
    """Text features on the CPU in float32, all padded to the longest text (B, n2, d).

    Texts of equal token ids are encoded once, and equal to the last bit. `progress` is told of them as of the others.
    """
    ids, mask = model.tokenize(list(texts))
    rows, place = _distinct(ids, mask)
    if len(rows) < len(texts):
        ids, mask = ids[rows], mask[rows]

    def encode(ids: torch.Tensor, mask: torch.Tensor) -> TextTokens:
        with torch.no_grad(), inference(model, precision):
            return to_cpu(model.encode_text(ids.to(model.device), mask.to(model.device)))

    def batches() -> Iterator[TextTokens]:
        for part in zip(ids.split(batch_size), mask.split(batch_size), strict=True):
            yield encode(*part) if cache is None else _kept_texts(cache, model, encode, *part)
            if progress is not None:
                progress(len(part[0]))
        if progress is not None and len(rows) < len(texts):
            progress(len(texts) - len(rows))

    features = collect(batches(), len(rows))
    return features if len(rows) == len(texts) else take(features, place)


def _distinct(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the texts that differ, in order of appearance, and the place of each text among them; mask is true as far
    as a text goes."""
    lines = ids.masked_fill(~mask, -1).cpu().numpy()
    whole = np.ascontiguousarray(lines).view(np.dtype((np.void, lines.itemsize * lines.shape[1])))[:, 0]
    _, first, place = np.unique(whole, return_index=True, return_inverse=True)
    order = first.argsort()
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return torch.from_numpy(first[order]), torch.from_numpy(number[place])


def _kept_texts(
    cache: FeatureCache,
    model: Any,
    encode: Callable[[torch.Tensor, torch.Tensor], TextTokens],
    ids: torch.Tensor,
    mask: torch.Tensor,
) -> TextTokens:
    """What `encode(ids, mask)` gives, of which the cache has some or all; zeros where the padding is."""
    from vlcli.evaluation.feature_cache import key_of
    from vlcli.models.dual import TextTokens

    pooled = cache.similarity == "global"
    real = mask.cpu()

    def compute(places: list[int]) -> list[Any]:
        features = encode(ids[places], mask[places])
        if features.pooled is not None:
            return list(features.pooled[:, None].numpy())
        assert features.tokens is not None, "a text has vectors"
        return [tokens[own].numpy() for tokens, own in zip(features.tokens, features.mask, strict=True)]

    keys = [key_of(line[own].tobytes()) for line, own in zip(ids.cpu().numpy(), real.numpy(), strict=True)]
    lists = cache.lists("text", keys, compute)
    content = model.content_mask(ids, mask).cpu()
    if pooled:
        return TextTokens(None, real, content, torch.from_numpy(np.concatenate(lists)))
    tokens = np.zeros((*real.shape, lists[0].shape[1]), np.float32)
    tokens[real.numpy()] = np.concatenate(lists)
    return TextTokens(torch.from_numpy(tokens), real, content, None)


def take(features: Any, numbers: Sequence[int] | torch.Tensor) -> Any:
    """The features of `numbers`, in that order."""

    def parts() -> Iterator[Any]:
        for start in range(0, len(numbers), 1024):
            yield features.rows(torch.as_tensor(numbers[start : start + 1024]))

    return collect(parts(), len(numbers))


def to_cpu(features: Any) -> Any:
    """The same NamedTuple with its tensors on the CPU, floats as float32."""
    return type(features)(*(None if part is None else _plain(part) for part in features))


def _plain(part: torch.Tensor) -> torch.Tensor:
    part = part.detach().cpu()
    return part.float() if part.is_floating_point() else part


def collect(batches: Iterator[Any], count: int) -> Any:
    """Batches of a NamedTuple of tensors as one of `count` rows; large tensors are mapped from a file."""
    whole: list[torch.Tensor | None] = []
    kind: Any = None
    done = 0
    for batch in batches:
        if kind is None:
            kind = type(batch)
            if next(len(part) for part in batch if part is not None) == count:
                assert next(batches, None) is None, (
                    f"more than {count} rows"
                )  # and lets them say how far they are
                return batch
            whole = [None if part is None else _room(count, part) for part in batch]
        size = next(len(part) for part in batch if part is not None)
        for room, part in zip(whole, batch, strict=True):
            if room is not None:
                room[done : done + size] = part
        done += size
    if kind is None:
        raise InputError("nothing to encode: the data has no rows")
    assert done == count, f"{done} rows encoded, {count} expected"
    return kind(*whole)


def _room(count: int, like: torch.Tensor) -> torch.Tensor:
    shape = (count, *like.shape[1:])
    if like.element_size() * int(np.prod(shape)) <= SPOOL_ABOVE:
        return torch.empty(shape, dtype=like.dtype)
    with tempfile.TemporaryFile(prefix="vlcli-features-") as file:  # the map outlives it
        return torch.from_numpy(np.memmap(file, dtype=like.numpy().dtype, mode="w+", shape=shape))


def similarity_of(model: Any) -> SimilarityFunction:
    """`model.similarity` for features that lie on the CPU: tiles travel to the model's device and back."""

    def similarity(image: Any, text: Any) -> Any:
        with torch.no_grad():
            score = model.similarity(_on(image, model.device), _on(text, model.device))
        return to_cpu(score)

    return similarity


def image_to_text_of(model: Any) -> Callable[[Any, Any], torch.Tensor]:
    """`similarity_of(model)` of which only image→text is wanted: on a CPU a token-wise model computes no more."""
    if model.similarity_kind == "global" or torch.device(model.device).type != "cpu":
        similarity = similarity_of(model)
        return lambda image, text: similarity(image, text).i2t

    def image_to_text(image: Any, text: Any) -> torch.Tensor:
        with torch.no_grad():
            return model.image_to_text(image, text)

    return image_to_text


def _on(features: Any, device: Any) -> Any:
    return type(features)(*(None if part is None else part.to(device) for part in features))
