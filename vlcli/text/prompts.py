"""Prompt sets: the templates a class name is put into before it is encoded [W App. A.1, spec §5.2]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from vlcli.errors import InputError, UsageError
from vlcli.text import languages, packaged
from vlcli.text.filip_prompts import NAMES as FILIP
from vlcli.text.filip_prompts import filip_prompts

_DATA = Path(__file__).parent / "data"
PARALLEL = f"parallel-20.{languages.SLOT}"  # line k says the same in each of AltCLIP's nine languages
BUILT_IN = {
    "wukong-80": _DATA / "wukong-80.txt",  # 80 lines, 78 distinct: both duplicates weigh twice, as printed
    "none": None,  # the bare name
    **{name: _DATA / f"{name}.txt" for name in (languages.named(PARALLEL, lang) for lang in languages.NINE)},
}
SLOT = "{}"
# name → what gives the templates; of the sets in packages with the languages that they are in
COMPUTED: dict[str, Callable[[], tuple[str, ...]]] = {
    **{name: partial(filip_prompts, name) for name in FILIP},
    "openai-80": packaged.openai_templates,
}
BY_LANGUAGE = {"nllb-80": packaged.nllb_templates, "clip-benchmark": packaged.native_templates}


@dataclass(frozen=True)
class PromptSet:
    """`templates` in order, each with exactly one `{}`; `name` is what results are labelled with."""

    name: str
    templates: tuple[str, ...]

    def fill(self, name: str) -> list[str]:
        """One text a template, in order. Braces inside `name` are kept as they are."""
        return [before + name + after for before, after in self._around]

    @cached_property
    def _around(self) -> list[tuple[str, str]]:
        """What stands before and behind the name in each template."""
        return [(before, after) for before, _, after in (one.partition(SLOT) for one in self.templates)]

    def __len__(self) -> int:
        return len(self.templates)


def load_prompts(name_or_file: str) -> PromptSet:
    """A built-in set by name, or a UTF-8 file with one template a line.

    Each template holds `{}` once (`{c}`, the form of CLIP_benchmark's lists, is read as `{}`). Blank lines
    are skipped and equal templates are kept. Raises UsageError when there is no such set or file, InputError
    naming file and line for a line without a slot or with two.
    """
    if name_or_file in BUILT_IN:
        built_in = BUILT_IN[name_or_file]
        return PromptSet(name_or_file, (SLOT,) if built_in is None else _read(built_in))
    if name_or_file in COMPUTED:
        return PromptSet(name_or_file, COMPUTED[name_or_file]())
    family, _, lang = name_or_file.rpartition(".")
    if family in BY_LANGUAGE:
        return PromptSet(name_or_file, BY_LANGUAGE[family](lang))
    file = Path(name_or_file)
    if not file.is_file():
        raise UsageError(
            f"{name_or_file}: no such prompt set",
            remedy=f"built in are wukong-80, none, {PARALLEL} ({' '.join(languages.NINE)}), openai-80,"
            f" filip-imagenet and its like, {', '.join(f'{family}.{languages.SLOT}' for family in BY_LANGUAGE)};"
            f" else give a file, one template with '{SLOT}' a line",
        )
    return PromptSet(file.name, _read(file))


def _read(file: Path) -> tuple[str, ...]:
    templates = []
    for number, line in enumerate(read_lines(file), start=1):
        template = line.strip().replace("{c}", SLOT)
        if not template:
            continue
        slots = template.count(SLOT)
        if slots != 1:
            cause = "no '{}'" if not slots else f"{slots} times '{{}}'"
            raise InputError(
                f"{cause} in the template {template!r}", file=str(file), line=number, remedy="each needs one"
            )
        templates.append(template)
    if not templates:
        raise InputError("no templates", file=str(file))
    return tuple(templates)


def read_lines(file: Path) -> list[str]:
    """The lines of a UTF-8 file, a byte-order mark left out; InputError names the line that is not UTF-8."""
    raw = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    lines = []
    for number, line in enumerate(raw.split(b"\n"), start=1):
        try:
            lines.append(line.removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError:
            raise InputError("not UTF-8", file=str(file), line=number) from None
    if lines and not lines[-1]:
        lines.pop()
    return lines
