"""Append what a command prints to RESULTS.md: the day, the machine, the commit, the command, its output.

    python tests/bench/record.py [--note TEXT] -- COMMAND …

The command runs from the folder that this is called in, and its output is shown as it comes. A command that fails is
not recorded. `--note` says what the numbers do not, such as who else used the machine.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = Path(__file__).with_name("RESULTS.md")
LIBRARIES = ("torch", "numpy", "polars")


def hardware() -> str:
    """Processor, cores, memory and GPUs, in one line."""
    told = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    cpu = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in told.splitlines())
    }
    flags = set(cpu.get("Flags", "").split())
    vector = next((name for name in ("amx_tile", "avx512f", "avx2") if name in flags), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [
        cpu.get("Model name", platform.machine()),
        f"{os.cpu_count()} cores",
        vector,
        f"{memory:.0f} GiB",
    ]
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        parts += subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pass
    return ", ".join(filter(None, parts))


def software() -> str:
    from importlib.metadata import version

    return ", ".join(
        [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in LIBRARIES)]
    )


def commit() -> str:
    """The commit's short name; with a mark where the tree is not as it says."""
    git = ["git", "-C", str(ROOT)]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "vlcli"], capture_output=True, text=True, check=True
    )
    return name.stdout.strip() + (" with changes" if changed.stdout.strip() else "")


def entry(command: list[str], output: str, note: str, day: str) -> str:
    """One section of the page. Of the machine's own paths nothing is kept."""
    shown = shlex.join(command)
    for place in (str(ROOT), os.getcwd(), str(Path.home())):
        shown, output = (re.sub(rf"{re.escape(place)}/?", "", text) for text in (shown, output))
    indented = "".join(f"    {line}".rstrip() + "\n" for line in (f"$ {shown}", *output.splitlines()))
    lines = [f"## {day}", "", f"{hardware()}; {software()}; commit {commit()}."]
    if note:
        lines += ["", note]
    return "\n".join([*lines, "", indented])


def run(command: list[str]) -> str:
    """The command's stdout, shown as it comes."""
    said = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            said.append(line)
    if process.returncode:
        sys.exit(process.returncode)
    return "".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--note", default="")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    command = asked.command[1:] if asked.command[:1] == ["--"] else asked.command
    if not command:
        parser.error("no command")
    output = run(command)
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    with PAGE.open("a", encoding="utf-8") as page:
        page.write("\n" + entry(command, output, asked.note, day))


if __name__ == "__main__":
    main()
