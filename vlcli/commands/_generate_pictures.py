"""`generate --text`: what a decoder, a prior and a dual encoder draw of texts, in a directory of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlcli.errors import UsageError

if TYPE_CHECKING:
    from vlcli.commands._console import Console
    from vlcli.generation.prompts import Prompt

SHOWN = 3  # prompts that are named where several are too long


@dataclass(frozen=True)
class Prompts:
    """What is drawn: texts as they were given, or rows."""

    texts: Sequence[str] | None
    inputs: Sequence[str]
    format: str | None
    renames: Mapping[str, str]
    head: int | None

    def read(self) -> Iterator[Prompt]:
        from vlcli.generation.prompts import given_prompts, row_prompts
        from vlcli.records.reader import read

        if self.texts:
            if self.inputs:
                raise UsageError("--text and rows of texts exclude each other")
            return given_prompts(self.texts)
        return row_prompts(read(self.inputs, renames=self.renames, format=self.format, head=self.head))


def draws(run: str, texts: Sequence[str] | None) -> bool:
    """Whether `run` is a decoder. UsageError where texts are to be drawn by what is none."""
    from vlcli.models.quickcheck import kind_of

    kind = kind_of(run)
    if texts and kind != "decoder":
        raise UsageError(f"{run} is a checkpoint of kind {kind!r}; --text wants 'decoder'")
    return kind == "decoder"


def refuse_output(output: str | None) -> Path:
    """Where the pictures go. UsageError for stdout."""
    if output == "-":
        raise UsageError("pictures go to a directory", remedy="name one with -o")
    return Path(output or "pictures")


def pictures(
    decoder: str,
    prior: str | None,
    clip: str | None,
    prompts: Prompts,
    output: str | None,
    way: Mapping[str, Any],
    console: Console,
    *,
    device: str,
    precision: str,
    batch_size: int,
    force: bool,
) -> None:
    """Draw every prompt into the directory `output`, which appears when all are there."""
    from vlcli.records.atomic import refuse_existing

    place = refuse_output(output)
    if not force:
        refuse_existing(place)
    if prior is None or clip is None:
        missing = "--prior" if prior is None else "--clip"
        raise UsageError(f"a decoder draws image embeddings, and texts have none without {missing}")
    left = prompts.read()
    painter = _painter(decoder, prior, clip, way, device)
    from vlcli.evaluation.embed import inference
    from vlcli.generation.pictures import album

    long = Long(painter.clip, console)
    with album(place, force=force) as pages, console.progress() as bar:
        task = bar.add_task("pictures", total=len(prompts.texts) if prompts.texts else None)
        while some := list(islice(left, batch_size)):
            cut = long.among(some)
            with inference(painter.decoder, precision):
                drawn = painter([one.text for one in some], [one.name for one in some])
            for one, picture in zip(some, drawn, strict=True):
                origin = painter.origin | ({"cut": True} if one.name in cut else {})
                pages.add(picture, one.text, origin, name=one.name, columns=one.columns)
            bar.advance(task, len(some))
        count = pages.count
    long.tell()
    side = painter.decoder.config.size
    console.note(f"{count:,} pictures of {side} × {side}; {place}")


def _painter(decoder: str, prior: str, clip: str, way: Mapping[str, Any], device: str) -> Any:
    import vlcli
    from vlcli.generation.painter import Painter, Way
    from vlcli.models.checkpoint import load_decoder, load_prior, resolve_device

    where = str(resolve_device(device))
    chosen = Way(**{name: value for name, value in way.items() if value is not None})
    parts = load_prior(prior, where), load_decoder(decoder, where)
    return Painter(vlcli.load(clip, where), *parts, chosen)


class Long:
    """Prompts longer than the dual encoder reads: counted, and the first ones named at the end."""

    def __init__(self, clip: Any, console: Console) -> None:
        self.tokenizer, self.context, self.console = clip.tokenizer, clip.config.text.context, console
        self.count = 0
        self.first: list[str] = []

    def among(self, prompts: Sequence[Prompt]) -> set[str]:
        """The names of those."""
        from vlcli.generation.prompts import too_long

        found = [one.name for one in too_long(self.tokenizer, prompts, self.context)]
        self.count += len(found)
        self.first += found[: SHOWN - len(self.first)]
        return set(found)

    def tell(self) -> None:
        if self.count:
            more = ", …" if self.count > len(self.first) else ""
            self.console.warn(
                f"{self.count:,} prompts are longer than the {self.context} tokens that are read, and were cut:"
                f" {', '.join(self.first)}{more}"
            )
