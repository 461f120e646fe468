"""The command table, and the one place where errors and signals become exit codes.

Nothing heavy is imported here: a command's module is imported when that command (or the list of all) is asked for,
and such a module imports its libraries inside the function.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import os
import re
import signal
import sys
import time
import traceback
from types import FrameType
from typing import Any, Literal

import typer
from typer.core import TyperGroup

from vlcli import __version__
from vlcli.commands import _complete, _console
from vlcli.commands._command import COLOR, build, said_color
from vlcli.commands._options import Color, Debug
from vlcli.errors import Terminated, UsageError, VlcliError

# command -> the panel of `vlcli --help` it stands in; the module is vlcli.commands.NAME, its function `command`.
COMMANDS = {
    "dataset": "Data",
    "filter": "Data",
    "stats": "Data",
    "tokenize": "Data",
    "dedup": "Data",
    "shard": "Data",
    "check": "Data",
    "distill": "Models",
    "pretrain": "Models",
    "finetune": "Models",
    "sweep": "Models",
    "convert": "Models",
    "embed": "Models",
    "zeroshot": "Evaluation",
    "retrieve": "Evaluation",
    "score": "Evaluation",
    "visualize": "Evaluation",
    "report": "Evaluation",
    "generate": "Generation",
    "recipes": "Help",
}

EXIT_SIGINT, EXIT_SIGPIPE, EXIT_SIGTERM = 130, 141, 143


class CommandTable(TyperGroup):
    """A group whose commands are imported on demand."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name not in self.commands:
            module = importlib.import_module(f"vlcli.commands.{cmd_name}")
            self.commands[cmd_name] = build(cmd_name, module, COMMANDS[cmd_name])
        return self.commands[cmd_name]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[COLOR] = said_color(args)
        _console.set_color(ctx.meta[COLOR] or os.environ.get("VLCLI_COLOR") or "auto")
        for param in self.get_params(ctx):
            _leave_absent(param)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _console.color_help()
        super().format_help(ctx, formatter)


def _leave_absent(param: Any) -> None:
    """An option that was not given needs no conversion: typer would import pydantic for it, a third of --help."""
    process = param.process_value
    param.process_value = lambda ctx, value: None if value is None else process(ctx, value)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"vlcli {__version__}")
        raise typer.Exit


def _show_completion(shell: str | None) -> None:
    if shell is not None:
        typer.echo(_complete.script(shell), nl=False)
        raise typer.Exit


app = typer.Typer(
    cls=CommandTable,
    add_completion=False,  # --show-completion is our own: it takes the shell's name, and edits no start-up file
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
    show_completion: Literal["bash", "zsh", "fish"] | None = typer.Option(
        None,
        "--show-completion",
        callback=_show_completion,
        is_eager=True,
        help="Print the completion script for a shell.",
    ),
    color: Color = None,
    debug: Debug = False,
) -> None:
    """From raw image-text pairs to a trained vision-language model and its figures, one pipe at a time.

    Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 runtime error, 2 usage, 3 damaged input,
    4 incomplete but resumable, 130/141/143 signals.
    """


def _is_broken_pipe(error: BaseException) -> bool:
    # polars raises a broken pipe as a plain OSError without errno.
    return isinstance(error, BrokenPipeError) or (isinstance(error, OSError) and "os error 32" in str(error))


def _say(line: str) -> None:
    """The last line on stderr. Of the processes of one launch only the first speaks of what all of them meet."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr)


def _quiet_stdout() -> None:
    """Point fd 1 at /dev/null, so that the interpreter's own flush at exit cannot fail a second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _die_of_sigpipe() -> None:
    _quiet_stdout()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_DEAF = 1.0  # seconds; a launcher and the terminal may both send what the user typed once
_AGAIN = 0.005  # seconds until a signal is raised anew that came where what is raised gets lost
_LOOK = 0.1  # seconds until it is looked whether what was raised is still on its way
_heard, _number = float("-inf"), 0


def _on_signal(number: int, frame: FrameType | None) -> None:
    """Raise where the program stands, so that `finally` and `with` clean up, and let them do it in peace.

    Not inside Python's own import machinery: its callbacks drop exceptions, and so do C modules that import. Where
    one was dropped all the same, so that nothing is being cleaned up a moment later, it is raised anew.
    """
    global _heard, _number
    if number == signal.SIGALRM and _stopped_by(sys.exception()) is not None:
        signal.setitimer(signal.ITIMER_REAL, _LOOK)
        return
    if number != signal.SIGALRM:
        if time.monotonic() - _heard <= _DEAF:
            return
        _heard, _number = time.monotonic(), number
    if frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        return
    signal.setitimer(signal.ITIMER_REAL, _LOOK)
    raise KeyboardInterrupt if _number == signal.SIGINT else Terminated


def _on_unraisable(lost: Any) -> None:
    """A signal that came in a destructor, where Python drops what is raised, comes again."""
    if isinstance(lost.exc_value, KeyboardInterrupt | Terminated):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
    else:
        sys.__unraisablehook__(lost)


def _listen() -> None:
    """Signals become exceptions; one that the parent has us ignore (a shell's background job) stays ignored."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)
    signal.signal(signal.SIGALRM, _on_signal)


def _stopped_by(error: BaseException | None) -> BaseException | None:
    """The signal behind an error: Python itself (`__set_name__`) and libraries wrap what comes in their midst."""
    while error is not None and not isinstance(error, KeyboardInterrupt | Terminated):
        error = error.__cause__ or error.__context__
    return error


def _say_stopped(program: str, stop: BaseException) -> int:
    signal.setitimer(signal.ITIMER_REAL, 0)  # it has arrived
    terminated = isinstance(stop, Terminated)
    _say(f"{program}: {'terminated' if terminated else 'interrupted'}")
    return EXIT_SIGTERM if terminated else EXIT_SIGINT


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return text or type(error).__name__


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code (a broken pipe dies of SIGPIPE instead)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    stop = argv.index("--") if "--" in argv else len(argv)
    debug = "--debug" in argv[:stop] or bool(os.environ.get("VLCLI_DEBUG"))
    argv = [a for i, a in enumerate(argv) if not (a == "--debug" and i < stop)]
    if argv[:1] == ["help"]:
        argv = [*argv[1:], "--help"]
    program = f"vlcli {argv[0]}" if argv and argv[0] in COMMANDS else "vlcli"
    if _complete.VARIABLE in os.environ:  # a shell asks for words
        _complete.register_shells()
    elif not argv:  # help that was not asked for is a usage error's: stderr, exit 2
        with contextlib.redirect_stdout(sys.stderr):
            app(["--help"], prog_name="vlcli", standalone_mode=False)
        return 2
    try:
        _listen()
        code = app(argv, prog_name="vlcli", standalone_mode=False) or 0
        if code == EXIT_SIGINT:  # typer makes an exit code of Ctrl-C inside a command
            raise KeyboardInterrupt
        try:
            sys.stdout.close()  # a delayed write error (a full disk) surfaces here and not after exit 0
        except OSError as error:
            error.filename = "<stdout>"
            raise
        return code if isinstance(code, int) else 0
    except (Terminated, KeyboardInterrupt) as stop:
        code = _say_stopped(program, stop)
    except SystemExit as stop:
        # typer's own answer to EPIPE is exit 1: the error it met says what really happened
        if stop.__context__ is not None and _is_broken_pipe(stop.__context__):
            _die_of_sigpipe()
        raise
    except Exception as error:
        if _is_broken_pipe(error):
            _die_of_sigpipe()
        if type(error).__name__ == "Abort" and isinstance(error.__context__, EOFError):
            error = error.__context__  # typer takes it for a Ctrl-D at a prompt
        if (signalled := _stopped_by(error)) is not None:
            code = _say_stopped(program, signalled)
        elif hasattr(error, "format_message"):  # typer's vendored click: usage errors
            _say(f"{program}: {_one_line_of_usage(error)}")
            code = getattr(error, "exit_code", 2)
        else:
            if debug:
                traceback.print_exception(error)
            # a damaged picture may be in the share of one process alone: only usage errors are met by all
            say = _say if isinstance(error, UsageError) else functools.partial(print, file=sys.stderr)
            say(f"{program}: {_one_line(error)}")
            code = error.exit_code if isinstance(error, VlcliError) else 1
    _quiet_stdout()
    return code


def _one_line_of_usage(error: Any) -> str:
    text = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    if type(error).__name__ == "UsageError" and (unknown := re.match("No such command '(.*)'", text)):
        near = difflib.get_close_matches(unknown[1], COMMANDS, 1)
        text += f"; did you mean '{near[0]}'?" if near else ""
    context = getattr(error, "ctx", None)
    return f"{text}; see '{context.command_path} --help'" if context is not None else text


def run() -> None:
    """The console script."""
    # OpenMP's threads spin at every barrier by default: three times slower as soon as a neighbour wants a core,
    # and no faster without one. Read when torch loads its runtime, so it must be said before.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.unraisablehook = _on_unraisable
    try:
        code = main()
    except (Terminated, KeyboardInterrupt) as stop:  # it came while the end was being told
        code = _say_stopped("vlcli", stop)
    # all is done and said: the interpreter's own end is not to be disturbed
    for number in (*_SIGNALS, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)
