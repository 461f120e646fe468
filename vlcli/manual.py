"""The manual: a page for vlcli and one for each command, from the live command tree.

    python -m vlcli.manual man vlcli/_data/completion      # what `make man` runs: pages and completion scripts

Pages are UTF-8 roff with the man macros and carry no date: the same bytes on every day. What docstring and options of
a command do not say (its files, its notes) stands in its module's MANUAL.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from vlcli import __version__
from vlcli.cli import COMMANDS, app
from vlcli.commands import _complete
from vlcli.commands._command import Command, paragraphs
from vlcli.commands._config import option_name, variable

Pairs = Iterable[tuple[str, str]]  # (term, what it is)

EXIT_STATUS = (
    ("0", "Done."),
    ("1", "A runtime error: a full disk, a file that may not be read."),
    ("2", "A wrong command line, recipe or configuration, or a file that is not there."),
    ("3", "The input is damaged, or more rows are bad than --max-bad allows."),
    ("4", "Stopped before the end; what was written can be resumed."),
    ("130, 141, 143", "Ended by SIGINT, by a closed pipe, by SIGTERM."),
)
ENVIRONMENT = (
    ("NO_COLOR", "If set and not empty: no colours, unless --color always is given."),
    ("TERM", "If `dumb`: no colours, and no progress that moves."),
    ("VLCLI_COLOR", "What --color is where it is not given."),
    ("VLCLI_DEBUG", "If set and not empty: tracebacks, as with --debug."),
)
FILES = (
    (
        "vlcli.toml",
        "Options of a project: one table a command, in the working directory or the nearest above.",
    ),
    (
        "$XDG_CONFIG_HOME/vlcli/config.toml",
        "Options of a user, in the same form; below ~/.config by default.",
    ),
)
PRECEDENCE = (
    "A value on the command line wins over the environment, that over the project's file, that over the user's, and "
    "that over what is built in. --print-config shows what holds, and why."
)
ROOT_EXAMPLES = (
    "vlcli filter raw.parquet --preset wukong | vlcli shard -o shards/",
    "vlcli pretrain --recipe lit-filip --init image=ViT-L-14.pt --data shards/ -o runs/lit-filip",
    "vlcli retrieve runs/lit-filip --data val.jsonl --json",
)


def pages() -> dict[str, str]:
    """File name → page, for vlcli and every command."""
    table: Any = typer.main.get_command(app)
    context = table.context_class(table, info_name="vlcli", help_option_names=["-h", "--help"])
    commands = {name: table.get_command(context, name) for name in COMMANDS}
    found = {"vlcli.1": _lines(_root_page(table, context, commands))}
    for name, command in commands.items():
        found[f"vlcli-{name}.1"] = _lines(_page(command, context))
    return found


def _root_page(table: Any, context: Any, commands: dict[str, Command]) -> Iterator[str]:
    yield from _head("vlcli", "image-text pairs to trained vision-language models and their figures")
    yield from (".SH SYNOPSIS", r"\fBvlcli\fR [\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGS\fR]...")
    yield from (".br", r"\fBvlcli help\fR \fICOMMAND\fR", ".SH DESCRIPTION")
    yield from _prose(paragraphs(table.help))
    yield ".SH COMMANDS"
    for panel in dict.fromkeys(COMMANDS.values()):
        yield f".SS {_quoted(panel)}"
        for name, command in commands.items():
            if COMMANDS[name] == panel:
                yield from _entry(rf"\fBvlcli\-{escape(name)}\fR(1)", [f"{_capital(command.summary)}."])
    yield from _options(table.get_params(context), context, "")
    yield ".SH CONFIGURATION"
    yield from _prose(
        f"Every option of a command can stand in a file, under its long name in the command's table. {PRECEDENCE} "
        "A table or name that is not known is an error, exit 2."
    )
    yield from (
        "",
        *_verbatim(("[filter]", 'preset = "wukong"', 'min-side = ">200"', "", "[shard]", "jobs = 2")),
    )
    yield from _pairs("EXIT STATUS", EXIT_STATUS)
    own = (
        "VLCLI_COMMAND_OPTION",
        "An option of a command, e.g. VLCLI_SHARD_JOBS; several values: spaces between.",
    )
    yield from _pairs("ENVIRONMENT", (own, *ENVIRONMENT))
    yield from _pairs("FILES", FILES)
    yield from _examples(ROOT_EXAMPLES)
    yield from _see_also(f"vlcli-{name}" for name in commands)


def _page(command: Command, context: Any) -> Iterator[str]:
    name, module, params = str(command.name), command.manual, command.get_params(context)
    extra: dict[str, Pairs] = getattr(module, "MANUAL", {})
    yield from _head(f"vlcli-{name}", command.summary)
    yield ".SH SYNOPSIS"
    places = " ".join(_place(p) for p in params if p.param_type_name == "argument")
    yield rf"\fBvlcli {escape(name)}\fR [\fIOPTIONS\fR] {places}".rstrip()
    yield ".SH DESCRIPTION"
    yield from _prose(paragraphs(module.command.__doc__))
    yield from _options(params, context, name)
    for title in extra:
        if title not in ("EXIT STATUS", "ENVIRONMENT", "FILES"):
            yield from _pairs(title, extra[title])
    yield from _pairs("EXIT STATUS", extra.get("EXIT STATUS", EXIT_STATUS))
    own = (
        variable(name, "option"),
        f"Any option above, e.g. {_example_variable(name, params)}. {PRECEDENCE}",
    )
    yield from _pairs("ENVIRONMENT", (*extra.get("ENVIRONMENT", ()), own, *ENVIRONMENT))
    yield from _pairs("FILES", (*extra.get("FILES", ()), *FILES))
    yield from _examples(command.examples)
    yield from _see_also(("vlcli", *(f"vlcli-{other}" for other in COMMANDS if other != name)))


def _example_variable(command: str, params: Iterable[Any]) -> str:
    names = [option_name(p) for p in params]
    return variable(command, next(n for n in names if n and n not in ("output", "files-from")))


def _head(name: str, summary: str) -> Iterator[str]:
    yield r"""'\" -*- coding: UTF-8 -*-"""
    yield r".\" Written by `make man` from the command tree: do not edit."
    yield f'.TH {escape(name.upper())} 1 "" "vlcli {__version__}" "vlcli manual"'
    yield from (".SH NAME", rf"{escape(name)} \- {escape(summary)}")


def _options(params: list[Any], context: Any, command: str) -> Iterator[str]:
    yield ".SH OPTIONS"
    panels: dict[str, list[Any]] = {"": []}
    for param in params:
        if not param.hidden:
            panels.setdefault(param.rich_help_panel or "", []).append(param)
    for panel, members in panels.items():
        if panel:
            yield f".SS {_quoted(panel)}"
        for param in members:
            yield from _entry(_term(param, context), list(_about(param)))


def _term(param: Any, context: Any) -> str:
    if param.param_type_name == "argument":
        return _place(param)
    names = ", ".join(rf"\fB{escape(o)}\fR" for o in (*sorted(param.opts, key=len), *param.secondary_opts))
    if param.is_flag or param.count:
        return names
    return rf"{names} \fI{escape(param.display_type_rich(context).strip('<>'))}\fR"


def _place(param: Any) -> str:
    """An argument, as the synopsis has it: `RUN`, `[FILE]...`."""
    shown = (
        rf"\fI{escape(param.metavar or '|'.join(param.type_descriptor.choices or (param.name.upper(),)))}\fR"
    )
    shown = shown if param.required else f"[{shown}]"
    return shown if param.nargs == 1 else f"{shown}..."


def _about(param: Any) -> Iterator[str]:
    """Help, bounds, default and variable of a parameter, a sentence each."""
    yield from _sentences(param.help or "")
    if getattr(param, "count", False):
        return
    if param.min:
        yield f"At least {param.min}."
    default = param.show_default if isinstance(param.show_default, str) else param.default
    if param.required:
        yield "Required."
    elif param.show_default and default not in (None, False, (), []):
        yield f"Default: {getattr(default, 'value', default)}."
    if getattr(param, "multiple", False) and "epeatable" not in (param.help or ""):
        yield "Repeatable."
    if param.envvar and param.show_envvar:
        names = param.envvar if isinstance(param.envvar, list) else [param.envvar]
        yield f"Environment: {', '.join(names)}."


def _pairs(title: str, pairs: Pairs) -> Iterator[str]:
    yield f".SH {_quoted(title)}"
    for term, text in pairs:
        if term:
            yield from _entry(rf"\fB{escape(term)}\fR", _sentences(text))
        else:
            yield from _prose(text)


def _entry(term: str, sentences: list[str]) -> Iterator[str]:
    yield from (".TP", term, *(_inline(sentence) for sentence in sentences))


def _prose(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        yield from (_inline(sentence) for sentence in _sentences(paragraph))


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])(?<!e\.g\.) (?=[A-Z`])", " ".join(text.split()))


def _examples(lines: Iterable[str]) -> Iterator[str]:
    yield ".SH EXAMPLES"
    for number, line in enumerate(lines):
        if number:
            yield ".PP"
        yield from _verbatim((line,))


def _verbatim(lines: Iterable[str]) -> Iterator[str]:
    yield from (".RS 4", ".nf", *(_guarded(escape(line)) for line in lines), ".fi", ".RE")


def _see_also(names: Iterable[str]) -> Iterator[str]:
    yield from (".SH SEE ALSO", ", ".join(rf"\fB{escape(name)}\fR(1)" for name in names))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _quoted(text: str) -> str:
    """An argument of a macro."""
    return '"' + escape(text).replace('"', r"\(dq") + '"'


def _inline(text: str) -> str:
    """A line of text: `names` and --options in bold."""
    parts = re.split(r"(`[^`]+`|(?<![\w-])--?[A-Za-z][\w-]*)", text)
    marked = (rf"\fB{escape(p.strip('`'))}\fR" if i % 2 else escape(p) for i, p in enumerate(parts))
    return _guarded("".join(marked))


def escape(text: str) -> str:
    """Text as roff prints it, character for character: a hyphen that can be pasted, quotes that stay straight."""
    text = text.replace("\\", r"\e")
    for plain, glyph in (("-", r"\-"), ("'", r"\(aq"), ("`", r"\(ga"), ("^", r"\(ha"), ("~", r"\(ti")):
        text = text.replace(plain, glyph)
    return text


def _guarded(line: str) -> str:
    """A line that starts as a request would is text all the same."""
    return rf"\&{line}" if line.startswith(".") else line


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line or '.PP'}\n" for line in lines)


def completions() -> dict[str, str]:
    """File name → completion script."""
    return {file: _complete.script(shell) for shell, file in _complete.FILES.items()}


def main(man: str, completion: str) -> None:
    """Write the pages into one folder and the scripts into the other; what else of ours stands there goes."""
    for folder, texts in ((Path(man), pages()), (Path(completion), completions())):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("vlcli*.1"):
            if old.name not in texts:
                old.unlink()
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
