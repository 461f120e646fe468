"""`generate` with a diffusion model in Stable Diffusion's format: prompts in, pictures, their rows and a grid out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlcli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vlcli.commands._console import Console

GRID = "grid"  # .png, .svg in the directory of pictures
AT_ONCE = 4
MOST_KNOWN = 65  # prompts that are read ahead: one more than a grid has


def is_diffusion(path: str) -> bool:
    """Whether what generate is to draw with is a directory in Stable Diffusion's format, by its name and folders."""
    return (Path(path) / "model_index.json").is_file() or (Path(path) / "unet").is_dir()


def refuse(options: Mapping[str, Any], what: str) -> None:
    """UsageError for options that would do nothing; those that were not given are None, False or empty."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise UsageError(f"{name} is not for {what}")


@dataclass(frozen=True)
class Asked:
    """Where the prompts come from: --text, --texts, or rows."""

    texts: Sequence[str] | None
    file: Path | None
    rows: Sequence[str]
    format: str | None
    renames: Sequence[str] | None
    langs: str | None
    head: int | None

    def read(self) -> Iterable[Any]:
        """The prompts. UsageError where they come from several places, or from nowhere."""
        from vlcli.generation.prompts_by_language import read_prompts, tagged_prompts

        said = [name for name, value in (("--text", self.texts), ("--texts", self.file)) if value]
        said += ["rows"] if self.rows else []
        if len(said) != 1:
            given = f"prompts from {' and '.join(said)}" if said else "no prompts"
            raise UsageError(given, remedy="--text zh=…, or --texts FILE, or rows")
        if self.langs is not None and not self.rows:
            raise UsageError("--langs goes with rows", remedy="--text zh=… says a prompt's language")
        if self.texts:
            return tagged_prompts(self.texts)
        return read_prompts(self.file) if self.file is not None else self._of_rows()

    def _of_rows(self) -> Iterable[Any]:
        from vlcli.commands._options import parse_map
        from vlcli.generation.prompts import row_prompts
        from vlcli.generation.prompts_by_language import prompts_by_language
        from vlcli.records.reader import read
        from vlcli.text.languages import named, parse_langs

        given = list(self.renames or ())
        how: dict[str, Any] = {"format": self.format, "head": self.head}
        if self.langs is None:
            return row_prompts(read(self.rows, renames=parse_map(given), **how))
        if "-" in self.rows:
            raise UsageError("--langs reads the rows once for each language, and stdin only once")

        def rows(lang: str) -> Any:
            return read(self.rows, renames=parse_map([named(value, lang) for value in given]), **how)

        return prompts_by_language(rows, parse_langs(self.langs))


def pictures(
    model: str,
    kv: str | None,
    encoder: str | None,
    asked: Asked,
    output: str | None,
    console: Console,
    *,
    seed: int,
    steps: int,
    guidance: float,
    device: str,
    precision: str,
    batch_size: int | None,
    force: bool,
) -> None:
    """Draw every prompt from the same noise into a directory."""
    from vlcli.commands._finetune_diffusion import open_text_side
    from vlcli.commands._generate_pictures import Long, refuse_output
    from vlcli.models.diffusion_directory import open_diffusion, require_diffusion
    from vlcli.records.atomic import refuse_existing

    out = refuse_output(output)
    if not force:
        refuse_existing(out)
    require_diffusion(model)
    prompts = iter(asked.read())
    first = list(islice(prompts, MOST_KNOWN))
    if not first:
        raise UsageError("no prompts: there are no rows")
    grid = _drawable(first, console)
    text_side = open_text_side(model, encoder)
    from vlcli.generation.guided import Guided
    from vlcli.generation.pictures import album
    from vlcli.generation.rows import generated_by
    from vlcli.models.checkpoint import resolve_device

    guided = Guided(open_diffusion(model), text_side, kv, resolve_device(device))
    origin = generated_by(guided.models, **guided.origin(seed=seed, steps=steps, guidance=guidance))
    long, drawn = Long(guided.conditioner.encoder, console), []
    with album(out, force=force) as book:
        every = chain(first, prompts)
        while group := list(islice(every, batch_size or AT_ONCE)):
            cut = long.among(group)
            texts = [prompt.text for prompt in group]
            found = guided(texts, seed=seed, steps=steps, guidance=guidance, precision=precision)
            for prompt, picture in zip(group, found, strict=True):
                made = origin | ({"cut": True} if prompt.name in cut else {})
                book.add(picture, prompt.text, made, name=prompt.name, columns=prompt.columns)
                drawn += [(picture, prompt)] if grid else []
        if grid:
            _draw_grid(book.place, drawn, origin)
        count = book.count
    long.tell()
    console.note(f"{count:,} pictures of {guided.model.size} px, {steps} steps, seed {seed}; {out}")


def _drawable(prompts: Sequence[Any], console: Console) -> bool:
    """Whether a grid is drawn of prompts, of which there are perhaps more than one has: where they are in languages,
    and fit. NoFont, before anything is computed, for a character without a glyph."""
    from vlcli.figures.fonts import find_fonts
    from vlcli.figures.prompts import MOST
    from vlcli.generation.prompts_by_language import lang_of

    if not any(map(lang_of, prompts)):
        return False
    if len(prompts) > MOST:
        console.note(f"more than {MOST} pictures are no grid: none is drawn")
        return False
    find_fonts().require([prompt.text for prompt in prompts])
    return True


def _draw_grid(place: Path, drawn: Sequence[Any], origin: Mapping[str, Any]) -> None:
    from vlcli.figures.prompts import Drawn, prompt_grid
    from vlcli.generation.prompts_by_language import lang_of

    models = ", ".join(f"{name} {value}" for name, value in origin["models"].items())
    foot = f"seed {origin['seed']}, {origin['steps']} steps, guidance {origin['guidance']:g}, {models}"
    figures = prompt_grid([Drawn(picture, prompt.text, lang_of(prompt)) for picture, prompt in drawn], foot)
    for kind, content in figures.items():
        (place / f"{GRID}.{kind}").write_bytes(content)
