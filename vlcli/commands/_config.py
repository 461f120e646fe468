"""Options from files: `vlcli.toml` of the project and the user's file, one table a command.

    [filter]
    preset = "wukong"
    min-side = ">200"

The command line wins over `VLCLI_COMMAND_OPTION`, that over the project's file (in the working directory or the
nearest directory above it), that over the user's (`$XDG_CONFIG_HOME/vlcli/config.toml`), that over what is built in.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlcli.errors import UsageError

PROJECT, USER = "vlcli.toml", "vlcli/config.toml"
NOT_CONFIGURABLE = ("help", "print-config", "debug")


@dataclass(frozen=True)
class Setting:
    """An option's value as a file has it, fit for typer, and the file."""

    value: Any
    file: str


def option_name(param: Any) -> str | None:
    """`min-side` of `--min-side`: what tables and VLCLI_* call it. None for an argument."""
    if param.param_type_name != "option":
        return None
    name = max(param.opts, key=len).lstrip("-")
    return None if name in NOT_CONFIGURABLE else name


def variable(command: str, option: str) -> str:
    """`VLCLI_FILTER_MIN_SIDE`."""
    return f"VLCLI_{command}_{option}".upper().replace("-", "_")


def files() -> list[Path]:
    """The files that there are, those that win last."""
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / USER
    here = Path.cwd()
    project = next((d / PROJECT for d in (here, *here.parents) if (d / PROJECT).is_file()), None)
    return [file for file in (user, project) if file is not None and file.is_file()]


def settings(command: str, params: Iterable[Any], commands: Sequence[str], ctx: Any) -> dict[str, Setting]:
    """What the files say of a command's options, by parameter name.

    Raises UsageError naming the file for what is no TOML, no command, no option of the command (with the nearest)
    and no value of the option.
    """
    options = {name: param for param in params if (name := option_name(param))}
    found: dict[str, Setting] = {}
    for file in files():
        shown = os.path.relpath(file) if file.parent == Path.cwd() else str(file)
        for key, value in _table(file, shown, command, commands).items():
            if key not in options:
                raise UsageError(f"{shown}: [{command}] {key}: no such option{_nearest(key, options)}")
            found[options[key].name] = Setting(_checked(options[key], key, value, shown, command, ctx), shown)
    return found


def _table(file: Path, shown: str, command: str, commands: Sequence[str]) -> dict[str, Any]:
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{shown}: not TOML: {error}") from None
    except OSError as error:
        raise UsageError(f"{shown}: {error.strerror}") from None
    for name, table in tables.items():
        if name not in commands:
            raise UsageError(f"{shown}: [{name}]: no such command{_nearest(name, commands)}")
        if not isinstance(table, dict):
            raise UsageError(f"{shown}: {name} is no table; write [{name}] and its options below")
    return tables.get(command, {})


def _checked(param: Any, key: str, value: Any, shown: str, command: str, ctx: Any) -> Any:
    """The value as the command line would give it; what typer would refuse is refused here, with the file."""
    said = value
    if param.multiple:
        value = [str(v) for v in (value if isinstance(value, list) else [value])]
    elif isinstance(value, (list, dict)):
        raise UsageError(f"{shown}: [{command}] {key}: one value is wanted, not {value!r}")
    elif not (param.is_flag or param.count):
        value = str(value)
    elif isinstance(value, str) or (param.is_flag and not isinstance(value, bool)):
        kind = "true or false is" if param.is_flag else "a number is"
        raise UsageError(f"{shown}: [{command}] {key}: {kind} wanted, not {value!r}")
    try:
        param.get_runtime_param().coerce(value, param=param, ctx=ctx)
    except Exception as error:
        if not hasattr(error, "message"):  # typer's vendored usage errors have one
            raise
        raise UsageError(f"{shown}: [{command}] {key} = {said!r}: {error.message}") from None
    return value


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), 1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def shown_config(command: Any, ctx: Any, files_said: dict[str, Setting]) -> str:
    """The resolved options as a table that can be saved as a file, each with where its value is from."""
    lines = [f"[{command.name}]"]
    for param in command.params:
        if (name := option_name(param)) is None:
            continue
        value = ctx.params[param.name]
        if value is None or value == () or value == []:
            lines.append(f"# {name}: not set")
            continue
        lines.append(f"{name} = {_toml(value)}  # {_origin(param, ctx, files_said)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A value on one line."""
    import tomli_w

    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(v) for v in value)}]"
    plain = value if isinstance(value, (bool, int, float)) else str(getattr(value, "value", value))
    return tomli_w.dumps({"v": plain}).removeprefix("v = ").rstrip("\n")


def variable_read(param: Any, ctx: Any) -> str | None:
    """The environment's variable that a parameter has its value from."""
    source = ctx.get_parameter_source(param.name)
    if source is None or source.name != "ENVIRONMENT":
        return None
    return next(name for name in param.envvar if os.environ.get(name))


def _origin(param: Any, ctx: Any, files_said: dict[str, Setting]) -> str:
    source = ctx.get_parameter_source(param.name)
    kind = "" if source is None else source.name
    if name := variable_read(param, ctx):
        return name
    if kind == "DEFAULT_MAP":
        return files_said[param.name].file
    return "command line" if kind == "COMMANDLINE" else "built-in"
