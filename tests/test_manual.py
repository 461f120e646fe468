"""The manual and the completion scripts: as the command tree has them, and as man and bash take them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vlcli import manual
from vlcli.cli import COMMANDS
from vlcli.recipes import names

ROOT = Path(__file__).parents[1]
MAN, COMPLETION = ROOT / "man", ROOT / "vlcli" / "_data" / "completion"
SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"]
# every escape and request that the pages may hold
ESCAPES = r"\\(?:f[BIR]|-|e|&|\((?:aq|ga|ha|ti|dq))"
REQUESTS = {"TH", "SH", "SS", "PP", "TP", "RS", "RE", "nf", "fi", "br"}


@pytest.fixture(scope="module")
def pages():
    return manual.pages()


def test_what_is_committed_is_what_the_command_tree_says(pages):
    for folder, texts in ((MAN, pages), (COMPLETION, manual.completions())):
        assert {file.name for file in folder.iterdir()} == set(texts)
        for name, text in texts.items():
            assert (folder / name).read_text(encoding="utf-8") == text, f"{name} is old: run `make man`"


def test_every_command_has_a_page_with_every_section(pages):
    assert set(pages) == {"vlcli.1", *(f"vlcli-{name}.1" for name in COMMANDS)}
    for name, text in pages.items():
        headings = [h.strip('"') for h in re.findall(r"^\.SH (.*)$", text, re.MULTILINE)]
        assert [h for h in headings if h in SECTIONS] == SECTIONS, name
        assert headings[-1] == "SEE ALSO"


def test_roff_is_plain_and_balanced(pages):
    for name, text in pages.items():
        assert text.endswith("\n")
        nesting: list[str] = []
        for number, line in enumerate(text.splitlines(), start=1):
            place = f"{name}:{number}: {line}"
            if line.startswith((r"'\"", r".\"")):
                continue
            assert "\\" not in re.sub(ESCAPES, "", line), place
            assert line, place  # a blank line is vertical space that man pages do without
            assert not line.startswith("'"), place
            if line.startswith("."):
                request = line[1:].split(" ", 1)[0]
                assert request in REQUESTS, place
                if request in ("RS", "nf"):
                    nesting.append(request)
                elif request in ("RE", "fi"):
                    assert nesting.pop() == {"RE": "RS", "fi": "nf"}[request], place
            else:
                assert "-" not in re.sub(ESCAPES, "", line), place  # a bare hyphen cannot be pasted
        assert not nesting


def test_pages_say_what_the_options_are(pages):
    shard = pages["vlcli-shard.1"]
    assert "\\fB\\-j\\fR, \\fB\\-\\-jobs\\fR \\fIN\\fR\n" in shard
    assert "Environment: VLCLI_SHARD_JOBS, VLCLI_JOBS.\n" in shard
    assert (
        "\\fB\\-\\-per\\-shard\\fR \\fIN\\fR\nInput rows in a shard.\nAt least 1.\nDefault: 10000.\n" in shard
    )
    assert "Delivery is at least once" in shard
    assert "\\fB\\-h\\fR, \\fB\\-\\-help\\fR\n" in shard
    filtered = pages["vlcli-filter.1"]
    assert "\\fB\\-\\-mask\\-names\\fR, \\fB\\-\\-no\\-mask\\-names\\fR\nWrite 〈人名〉" in filtered
    assert '.SS "Rules (each overrides the preset; \\(aqoff\\(aq switches one off)"\n' in filtered
    assert "split = \\(aqval\\(aq" in filtered
    assert "狐狸" in pages["vlcli-visualize.1"]


def test_text_survives_roff():
    assert manual.escape(r"a-b \n 'x' `~^") == r"a\-b \en \(aqx\(aq \(ga\(ti\(ha"
    assert manual._inline("see `a.b` and --no-x, pre-train -j") == (
        r"see \fBa.b\fR and \fB\-\-no\-x\fR, pre\-train \fB\-j\fR"
    )
    assert manual._inline(".5 of it") == r"\&.5 of it"


def test_man_shows_every_page_without_a_warning(pages):
    """Where man is installed; what it would refuse, the test above refuses too."""
    if shutil.which("man") is None or shutil.which("groff") is None:
        return
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MAN_KEEP_FORMATTING": ""}
    for name in pages:
        done = subprocess.run(
            ["man", "--warnings", "-E", "UTF-8", "-l", str(MAN / name)],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert (done.returncode, done.stderr) == (0, ""), name
        if name == "vlcli-filter.1":
            assert "〈人名〉" in done.stdout
            assert "vlcli filter raw.parquet --where \"split = 'val'\" -o val.jsonl" in done.stdout


def complete(line: str, bash_env: dict[str, str]) -> list[str]:
    """What bash offers at the end of `line`, by the committed script."""
    words = line.split(" ")
    program = (
        f"source {COMPLETION / 'vlcli.bash'}; COMP_WORDS=({' '.join(repr(w) for w in words)});"
        f"COMP_CWORD={len(words) - 1}; _vlcli_completion vlcli; printf '%s\\n' \"${{COMPREPLY[@]}}\"; complete -p vlcli"
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=bash_env)
    assert done.returncode == 0, done.stderr
    *offered, registered = done.stdout.splitlines()
    assert registered == "complete -o default -F _vlcli_completion vlcli"
    return offered


def test_bash_completes(tmp_path):
    program = tmp_path / "vlcli"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m vlcli "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    assert complete("vlcli re", environment) == ["retrieve", "report", "recipes"]
    assert complete("vlcli filter --m", environment)[:2] == ["--max-per-query", "--min-ctr"]
    assert complete("vlcli pretrain --recipe lit-", environment) == [
        name for name in names() if name.startswith("lit-")
    ]
    assert complete("vlcli filter x --preset w", environment) == ["wukong"]
    assert complete("vlcli recipes s", environment) == ["show"]


def test_completion_imports_nothing_heavy():
    program = (
        "import os, sys; os.environ.update(_VLCLI_COMPLETE='complete_bash', COMP_CWORD='3',"
        "COMP_WORDS='vlcli pretrain --recipe '); from vlcli.cli import main\n"
        "try: main([])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'polars', 'pyarrow', 'timm', 'numpy', 'PIL'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == names()
    assert done.stderr == "[]\n"


def test_show_completion_prints_the_committed_scripts():
    program = "import sys; from vlcli.cli import app; app(['--show-completion', sys.argv[1]], standalone_mode=False)"
    for shell, file in (("bash", "vlcli.bash"), ("zsh", "_vlcli"), ("fish", "vlcli.fish")):
        done = subprocess.run(
            [sys.executable, "-c", program, shell], capture_output=True, text=True, cwd=ROOT
        )
        assert (done.stdout, done.stderr) == ((COMPLETION / file).read_text(), "")
