"""Completion: the script each shell loads, and the words that stand after an option. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable

VARIABLE = "_VLCLI_COMPLETE"  # the shell's script sets it and calls vlcli, which answers with words
FILES = {"bash": "vlcli.bash", "zsh": "_vlcli", "fish": "vlcli.fish"}  # shell -> file of the wheel


def register_shells() -> None:
    """Let typer answer the scripts."""
    from typer.completion import completion_init

    completion_init()


def script(shell: str) -> str:
    """The completion script of bash, zsh or fish."""
    from typer.completion import get_completion_script

    text = get_completion_script(prog_name="vlcli", complete_var=VARIABLE, shell=shell)
    if shell == "zsh":
        # Loaded from $fpath the file is a function's body: its first call is to complete, not only to define.
        text += '\n\nif [[ $zsh_eval_context[-1] == loadautofunc ]]; then\n  _vlcli_completion "$@"\nfi'
    return text + "\n"


def words(*choices: str) -> Callable[[], list[str]]:
    """A completion from a fixed list, for values that may be others too."""
    return lambda: list(choices)


def recipes() -> list[str]:
    from vlcli.recipes import names

    return names()


def presets() -> list[str]:
    # beside vlcli.curation.preset, which reads them: importing that would import polars
    from importlib.resources import files

    found = (files("vlcli.curation") / "presets").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in found if file.name.endswith(".toml"))


def prompts() -> list[str]:
    from vlcli.text.prompts import BUILT_IN

    return list(BUILT_IN)


def datasets() -> list[str]:
    from vlcli.datasets.registry import SETS

    return list(SETS)
