"""Options: one meaning a flag wherever it stands; values from flags, environment, files; colours; a bare terminal."""

import os
import pty
import select
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from vlcli.cli import COMMANDS, app
from vlcli.commands import _console, _options
from vlcli.errors import InputError, UsageError

ROOT = Path(__file__).parents[1]
# What differs, and why.
OWN_MEANING = {
    "--text": "visualize looks for it in a picture, generate draws it",
    "--encoder": "it guides a diffusion model, or says how well pictures fit their captions",
    "--langs": "evaluations measure in each, generate draws in each",
    "--output": "a stream, a directory of shards, a run, a figure: each command says what it makes",
    "--against": "filter compares texts and files exactly, dedup images by what they show",
    "--lang": "filter keeps texts of a language; elsewhere it labels the result",
    "--split": "filter makes the column that the evaluations read one value of",
    "--from": "a format of rows, or of checkpoints",
    "--to": "a format of rows, or of checkpoints",
    "--tokenizer": "tokenize cuts texts with it, convert gives it to a model that carries none",
    "--precision": "what trains can scale its loss, and so compute in fp16 too",
    "--data": "pairs of images and texts, or, of distill, of sentences",
    "--val": "the same",
    "--mix": "filter's is of any column, shard's of the sources of parallel text",
    "--sample": "filter's is of rows, shard's of the pairs of each language",
    "--method": "how duplicates are found, what a figure shows",
    "--predictions": "of each row, of each query",
    "--predictions-as": "what takes classes, and what takes ranked lists",
    "--label-column": "finetune's is also of 1 and 0",
    "--task": "finetune learns one, zeroshot is scored by one",
    "--train": "tokenize learns a vocabulary of its own input, zeroshot's probes learn from these rows",
    "--dataset": "zeroshot's are also sets of labelled images, of whatever form",
    "--recipe": "finetune has one for each task",
    "--features": "zeroshot's probes learn from them, score compares pictures in them",
    "--jobs": "worker processes, of sweep whole runs",
    "--format": "what report writes for another tool, what generate writes for COCO's scorers",
    "--results": "what convert's card quotes, where evaluations keep theirs",
    "--beams": "of filter's translator, of generate's captioner",
    "--batch-size": "pretrain's is the batch of the loss, elsewhere it is only memory",
}
# What they find is their output; pretrain's is a plan, a profile, or what a run came to.
REPORTS = {"check", "stats", "zeroshot", "retrieve", "score", "visualize", "recipes", "pretrain", "sweep"}


def tree():
    table = typer.main.get_command(app)
    context = table.context_class(table, info_name="vlcli", help_option_names=["-h", "--help"])
    return {name: (table.get_command(context, name), context) for name in COMMANDS}


def options():
    """(command, long flag, option) of every option there is."""
    for name, (command, context) in tree().items():
        for param in command.get_params(context):
            if param.param_type_name == "option":
                yield name, max(param.opts, key=len), param, context


def test_a_flag_means_the_same_in_every_command():
    first: dict[str, tuple] = {}
    for name, flag, param, context in options():
        if flag in OWN_MEANING:
            continue
        shown = param.display_type_rich(context)
        seen = (param.help, shown, set(param.opts), param.multiple, param.is_flag)
        other = first.setdefault(flag, (name, *seen))
        assert other[1:] == seen, f"{flag} of {other[0]} and {name}"
    differing = {flag for _, flag, *_ in options()} & set(OWN_MEANING)
    assert differing == set(OWN_MEANING), "no longer needed here"


def test_a_short_flag_stands_for_one_long_flag():
    long: dict[str, str] = {}
    for _, flag, param, _ in options():
        for opt in param.opts:
            if not opt.startswith("--"):
                assert long.setdefault(opt, flag) == flag
    assert long == {
        **{"-X": "--files-from", "-o": "--output", "-n": "--dry-run", "-j": "--jobs", "-q": "--quiet"},
        **{"-v": "--verbose", "-h": "--help"},
    }


def test_every_command_has_what_it_must_have():
    flags: dict[str, set[str]] = {name: set() for name in COMMANDS}
    for name, flag, param, _ in options():
        flags[name].add(flag)
        assert param.help, f"{name} {flag} has no help"
    everywhere = {"--help", "--color", "--debug", "--print-config"}
    for name, own in flags.items():
        assert everywhere <= own
        assert ("--quiet" in own) == ("--verbose" in own) == (name != "recipes")  # which only prints
        assert ("--json" in own) == (name in REPORTS)
    for name in ("filter", "stats", "tokenize", "shard", "check"):
        assert "--files-from" in flags[name]
    for name in ("filter", "shard", "pretrain", "convert"):
        assert {"--dry-run", "--force"} <= flags[name]


def config(capsys, *line):
    assert not app([*line, "--print-config"], prog_name="vlcli", standalone_mode=False)
    return capsys.readouterr().out


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A project with a folder in it, which is the working directory, and a user's home."""
    home, here = tmp_path / "home" / ".config", tmp_path / "project" / "deep"
    (home / "vlcli").mkdir(parents=True)
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    return home / "vlcli" / "config.toml", tmp_path / "project" / "vlcli.toml"


def test_flags_win_over_environment_over_project_over_user(places, monkeypatch, capsys):
    user, project = places
    assert "\nper-shard = 10000  # built-in\n" in config(capsys, "shard")
    user.write_text("[shard]\nper-shard = 1\njobs = 1\nmap = 'text=a'\n[filter]\nmin-side = 200\n")
    assert f"\nper-shard = 1  # {user}\n" in config(capsys, "shard")
    project.write_text("[shard]\nper-shard = 2\n")
    text = config(capsys, "shard")
    assert f"\nper-shard = 2  # {project}\n" in text
    assert f'\nmap = ["text=a"]  # {user}\n' in text
    monkeypatch.setenv("VLCLI_JOBS", "3")
    assert "\njobs = 3  # VLCLI_JOBS\n" in config(capsys, "shard")
    monkeypatch.setenv("VLCLI_SHARD_JOBS", "4")
    monkeypatch.setenv("VLCLI_SHARD_PER_SHARD", "5")
    text = config(capsys, "shard", "--per-shard", "6")
    assert "\njobs = 4  # VLCLI_SHARD_JOBS\n" in text
    assert "\nper-shard = 6  # command line\n" in text
    assert "\nper-shard = 5  # VLCLI_SHARD_PER_SHARD\n" in config(capsys, "shard")
    # a number stands for the text that the command line would give
    assert f'\nmin-side = "200"  # {user}\n' in config(capsys, "filter")
    # what is printed is a file that says the same
    (places[1].parent / "deep" / "vlcli.toml").write_text(text)
    assert tomllib.loads(config(capsys, "shard")) == {**tomllib.loads(text)} | {
        "shard": {**tomllib.loads(text)["shard"], "per-shard": 5}
    }


def test_a_value_from_a_file_is_used_and_a_required_one_may_be_missing(places, capsys):
    _, project = places
    project.write_text('[recipes]\nset = ["train.seed=7"]\n')
    assert not app(["recipes", "show", "emoji-lit-clip"], prog_name="vlcli", standalone_mode=False)
    assert tomllib.loads(capsys.readouterr().out)["train"]["seed"] == 7
    assert "\n# recipe: not set\n" in config(capsys, "pretrain")
    bare = vlcli("pretrain", cwd=project.parent)
    assert (bare.returncode, bare.stderr) == (
        2,
        "vlcli pretrain: Missing option '--recipe'; see 'vlcli pretrain --help'\n",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[filtr]\n", "[filtr]: no such command; did you mean 'filter'?"),
        ("[filter]\nmin-sid = 3\n", "[filter] min-sid: no such option; did you mean 'min-side'?"),
        ("[filter]\nhelp = true\n", "[filter] help: no such option"),
        ("filter = 3\n", "filter is no table; write [filter] and its options below"),
        ("[filter]\nhead = 'x'\n", "[filter] head = 'x': Input should be a valid integer"),
        ("[filter]\nhead = -1\n", "[filter] head = -1: Input should be greater than or equal to 0"),
        ("[filter]\nforce = 1\n", "[filter] force: true or false is wanted, not 1"),
        ("[filter]\nhead = [1]\n", "[filter] head: one value is wanted, not [1]"),
        ("[filter\n", "not TOML:"),
    ],
)
def test_a_wrong_file_is_named_with_the_nearest_name(places, text, said):
    _, project = places
    project.write_text(text)
    with pytest.raises(UsageError) as caught:
        app(["filter"], prog_name="vlcli", standalone_mode=False)
    assert str(caught.value).startswith(f"{project}: {said}"), caught.value
    assert caught.value.exit_code == 2
    assert not app(["filter", "--help"], prog_name="vlcli", standalone_mode=False)  # help is always given


def test_a_wrong_value_in_the_environment_is_told_with_its_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("VLCLI_SHARD_PER_SHARD", "0")
    done = vlcli("shard", "x.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "vlcli shard: Invalid value for '--per-shard': Input should be greater than or equal to 1"
        " (from VLCLI_SHARD_PER_SHARD); see 'vlcli shard --help'\n"
    )
    assert "(from" not in vlcli("shard", "x.jsonl", "--per-shard", "0", cwd=tmp_path).stderr


def test_files_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b c.jsonl", "d.jsonl"):
        Path(name).write_text('{"image": "x.png", "text": "红"}\n')
    Path("list").write_bytes(b"b c.jsonl\r\n\n*.jsonl")
    assert _options.gather(["d.jsonl"], "list") == ["d.jsonl", "b c.jsonl", "*.jsonl"]
    assert _options.gather(None, None) == []
    Path("wrong").write_text("a.jsonl\nnowhere.jsonl\n")
    with pytest.raises(UsageError, match=r"^wrong:2: nowhere.jsonl: no such file$"):
        _options.gather(None, "wrong")
    Path("empty").write_text("\n")
    with pytest.raises(UsageError, match="names no file"):
        _options.gather(None, "empty")
    with pytest.raises(UsageError, match="--files-from gone: No such file"):
        _options.gather(None, "gone")
    Path("a.bin").write_bytes(b"a\0b\n")
    with pytest.raises(InputError, match=r"^a.bin:1: .* a NUL$"):
        _options.gather(None, "a.bin")
    line = ["filter", "-q", "-X", "-", "-o", "out.jsonl"]
    done = vlcli(*line, cwd=tmp_path, input="a.jsonl\nb c.jsonl\n")
    assert done.returncode == 0, done.stderr
    assert Path("out.jsonl").read_text().count("\n") == 2


def test_jobs_are_the_cores_given_to_this_job(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(_options, "Path", lambda _: Path("/nowhere"))
    assert _options.default_jobs() == 4
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    assert _options.default_jobs() == 2
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    monkeypatch.setattr(_options, "Path", lambda _: Quota("300000 100000\n"))
    assert _options.default_jobs() == 3
    monkeypatch.setattr(_options, "Path", lambda _: Quota("50000 100000\n"))
    assert _options.default_jobs() == 1
    monkeypatch.setattr(_options, "Path", lambda _: Quota("max 100000\n"))
    assert _options.default_jobs() == 4


class Quota(str):
    def read_text(self):
        return str(self)


def vlcli(*arguments, cwd, **more):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "vlcli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, **more)


def on_a_terminal(*arguments, cwd, stdout_too=True, **variables):
    """(exit code, what the terminal shows, what stdout holds where that is a pipe)."""
    keep = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "TERM", "COLORTERM")}
    environment = {**keep, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100", **variables}
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "vlcli", *arguments],
        cwd=cwd,
        env=environment,
        stdin=slave,
        stdout=slave if stdout_too else subprocess.PIPE,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    while select.select([master], [], [], 60)[0]:
        try:
            piece = os.read(master, 4096)
        except OSError:  # Linux's word for the end
            break
        if not piece:
            break
        shown += piece
    piped = process.stdout.read() if process.stdout else b""
    os.close(master)
    return process.wait(60), shown.decode(), piped.decode()


@pytest.mark.parametrize("command", ["filter", "shard"])
def test_a_bare_terminal_is_greeted(command, tmp_path):
    code, shown, piped = on_a_terminal(command, cwd=tmp_path, stdout_too=False)
    assert (code, piped) == (2, "")
    lines = shown.splitlines()
    assert lines[0] == f"Usage: vlcli {command} [OPTIONS] [FILE]..."
    assert any(line.startswith(f"  vlcli {command} ") for line in lines)
    assert lines[-1] == (
        f"vlcli {command}: no input: stdin is a terminal; name a file or pipe rows in; see 'vlcli {command} --help'"
    )
    assert len(lines) <= 8
    assert not list(tmp_path.iterdir())


def test_colours_on_a_terminal_obey(tmp_path):
    assert "\x1b[" in on_a_terminal("check", "--help", cwd=tmp_path)[1]
    for arguments, variables in (
        (("check", "--help"), {"NO_COLOR": "1"}),
        (("check", "--help"), {"TERM": "dumb"}),
        (("--color", "never", "check", "--help"), {}),
        (("check", "--help", "--color=never"), {"VLCLI_COLOR": "always"}),
    ):
        code, shown, _ = on_a_terminal(*arguments, cwd=tmp_path, **variables)
        assert code == 0
        assert "Usage: vlcli check" in shown
        assert "\x1b[" not in shown, (arguments, variables)


def test_colours_in_a_pipe_only_when_asked_for(tmp_path):
    assert "\x1b[" not in vlcli("check", "--help", cwd=tmp_path).stdout
    assert "\x1b[" in vlcli("check", "--help", "--color", "always", cwd=tmp_path).stdout
    wrong = vlcli("check", "--color", "sometimes", "x", cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("when", "variables", "coloured"),
    [
        ("auto", {"NO_COLOR": "1"}, False),
        ("always", {"NO_COLOR": "1", "TERM": "dumb"}, True),
        ("auto", {"TERM": "dumb"}, False),
        ("auto", {"TERM": "xterm"}, True),
        ("never", {"TERM": "xterm"}, False),
        ("auto", {"TERM": "xterm", "NO_COLOR": ""}, True),
    ],
)
def test_tables_obey(when, variables, coloured, monkeypatch):
    for name in ("NO_COLOR", "TERM", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    _console.set_color(when)
    try:
        shown = Terminal()
        _console.show_table("title", ["", "number"], [["a", "1"]], stream=shown)
    finally:
        _console.set_color("auto")
    assert ("\x1b[" in shown.text) == coloured, shown.text


def test_cells_are_wide_where_letters_are_and_say_what_they_hold(monkeypatch):
    from rich.cells import cell_len

    monkeypatch.setenv("COLUMNS", "60")
    _console.set_color("never")
    try:
        shown = Terminal()
        rows = [["狐狸", "1"], ["ثعلب 3", "2"], ["여우", "3"], ["[red]a[/red] :fox:", "4"]]
        _console.show_table("[b]title[/b]", ["name", "n"], rows, stream=shown)
    finally:
        _console.set_color("auto")
    title, *lines = shown.text.splitlines()
    assert title.startswith("[b]title")
    assert len({cell_len(line) for line in lines}) == 1
    assert "[red]a[/red] :fox:" in shown.text
    assert "\u2068ثعلب 3\u2069" in shown.text


class Terminal:
    """A stream that says it is one."""

    encoding, text = "utf-8", ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_progress_is_not_drawn_on_a_dumb_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    for term, drawn in (("xterm", True), ("dumb", False)):
        monkeypatch.setenv("TERM", term)
        assert _console.Console("filter").is_terminal == drawn
        assert _console.Console("filter").progress().disable != drawn


def test_the_plan_says_what_becomes_of_a_directory_in_use(tmp_path):
    from vlcli.commands._training import fate

    out = tmp_path / "run"
    assert fate(out, resume=False, force=False) == f"would write {out}"
    (out / "checkpoints").mkdir(parents=True)
    (out / "metrics.jsonl").touch()
    (out / "letter.txt").touch()  # stays: it is not a run's
    assert fate(out, resume=False, force=True) == f"would replace checkpoints, metrics.jsonl in {out}"
    assert fate(out, resume=False, force=False) == f"{out} is not empty: needs --force"
    assert fate(out, resume=True, force=False) == f"would go on in {out}"
