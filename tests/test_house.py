"""The rules of the house: who may import whom, what stays light, what is shipped."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vlcli"
# Each folder depends only on those before it (and on errors.py); the schemas and recipes.py stand between models
# and training.
FLOW = [
    "records",
    "text",
    "images",
    "curation",
    "shards",
    "datasets",
    "objectives",
    "models",
    "evaluation",
    "generation",
    "schemas",
    "recipes",
    "training",
    "figures",
    "commands",
    "cli",
    "manual",
]


def imported_rooms(file):
    """Rooms of vlcli that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        modules = []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module]
            if node.module == "vlcli":
                modules = [f"vlcli.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            parts = module.split(".")
            if parts[0] == "vlcli" and len(parts) > 1:
                yield parts[1]


def test_a_room_depends_only_on_those_before_it():
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in FLOW:
            continue
        for other in imported_rooms(file):
            if other in FLOW and FLOW.index(other) > FLOW.index(room):
                wrong.append(f"{file.relative_to(ROOT)} imports {other}")
    assert not wrong


def test_every_folder_has_its_place_in_the_flow():
    folders = {d.name for d in PACKAGE.iterdir() if (d / "__init__.py").exists()}
    assert folders == set(FLOW) - {"recipes", "cli", "manual"}


def test_the_library_never_prints():
    """Only commands and the command line itself speak."""
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        if file.relative_to(PACKAGE).parts[0] in ("commands", "cli.py"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                wrong.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not wrong


def commands():
    from vlcli.cli import COMMANDS

    return [[], *([name] for name in COMMANDS)]


@pytest.mark.parametrize("command", commands(), ids=lambda c: c[0] if c else "vlcli")
def test_help_answers_without_heavy_imports(command):
    program = (
        "import sys; from vlcli.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'polars', 'pyarrow', 'transformers', 'timm', 'PIL', 'numpy', 'accelerate', 'matplotlib'};"
        "heavy &= set(sys.modules);"
        "sys.exit(f'{code} {sorted(heavy)}' if code or heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_exit_codes_of_usage_errors():
    for arguments in (["nonsense"], ["filter", "--no-such-option"], ["pretrain"]):
        done = subprocess.run(
            [sys.executable, "-m", "vlcli", *arguments], capture_output=True, text=True, cwd=ROOT, input=""
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert len(done.stderr.strip().splitlines()) == 1
        assert "Traceback" not in done.stderr


def test_of_launched_processes_only_the_first_says_a_usage_error():
    for rank, lines in (("0", 1), ("1", 0)):
        done = subprocess.run(
            [sys.executable, "-m", "vlcli", "pretrain", "--recipe", "nonsense"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "RANK": rank},
        )
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == lines


def test_the_project_speaks_only_of_itself():
    listed = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout.split()
    wrong = []
    for name in listed:
        file = ROOT / name
        if file.suffix in {".py", ".md", ".toml", ".sh", ".yml"}:
            text = file.read_text(encoding="utf-8")
            foreign = ("/" + "work/", "/tmp/" + "dev")  # in two pieces, or this file would find itself
            wrong += [f"{name}: {word}" for word in foreign if word in text]
    assert not wrong
