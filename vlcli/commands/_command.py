"""One subcommand as typer sees it: its options, those that every command has, and where values come from."""

from __future__ import annotations

import inspect
import os
import sys
from typing import Any

import typer
from typer.core import TyperCommand

from vlcli.commands import _config, _console, _options

COLOR = "vlcli.color"  # what --color said, wherever on the line it stands


class Command(TyperCommand):
    """Reads the configuration files, answers --print-config, and greets who starts a filter on a bare terminal."""

    summary = ""  # the first sentence, as the manual's NAME has it
    examples: tuple[str, ...] = ()
    manual: Any = None  # the module: what else its page says
    settings: dict[str, _config.Setting]

    def adopt(self, module: Any) -> None:
        """Take the rest from the module that the command is written in."""
        self.manual, self.examples = module, module.EXAMPLES
        self.summary = module.__doc__.partition(":")[2].strip().partition("\n")[0].rstrip(".")
        self.params += _everywhere()
        param: Any
        for param in self.params:
            if name := _config.option_name(param):
                own = _config.variable(str(self.name), name)
                param.show_envvar = bool(param.envvar)  # help shows those that have a name of their own
                param.envvar = [own, param.envvar] if isinstance(param.envvar, str) else [own]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        self.settings = {}
        required = [param for param in self.params if param.required]
        if not ctx.resilient_parsing and not {"-h", "--help"} & set(args):
            # not while the shell completes, and help is answered whatever the files hold
            self.settings = _config.settings(
                str(self.name), self.params, ctx.parent.command.list_commands(ctx), ctx
            )
            ctx.default_map = {name: setting.value for name, setting in self.settings.items()}
        try:
            if "--print-config" in args:  # what is missing is then shown as such
                for param in required:
                    param.required = False
            return super().parse_args(ctx, args)
        except Exception as error:
            # typer's own: a value that nobody typed is told with the variable it is from
            wrong: Any = getattr(error, "param", None)
            if wrong is not None and (name := _config.variable_read(wrong, ctx)):
                error.message = f"{error.message} (from {name})"  # type: ignore[attr-defined]
            raise
        finally:
            for param in required:
                param.required = True

    def invoke(self, ctx: Any) -> Any:
        everywhere = {param.name: ctx.params[param.name] for param in _everywhere()}
        _console.set_color(ctx.meta.get(COLOR) or everywhere["color"] or "auto")
        if everywhere["print_config"]:
            if os.environ.get("RANK", "0") == "0":  # of a launcher's processes the first speaks
                typer.echo(_config.shown_config(self, ctx, self.settings), nl=False)
            return None
        for name in everywhere:
            del ctx.params[name]
        waits = "inputs" in ctx.params and not ctx.params["inputs"] and not ctx.params.get("files_from")
        if waits and sys.stdin is not None and sys.stdin.isatty():
            self._greet(ctx)
            ctx.exit(2)
        return super().invoke(ctx)

    def _greet(self, ctx: Any) -> None:
        examples = "\n".join(f"  {line}" for line in self.examples[:3])
        cause = f"{ctx.command_path}: no input: stdin is a terminal; name a file or pipe rows in"
        print(f"{ctx.get_usage()}\n\n{examples}\n\n{cause}; see '{ctx.command_path} --help'", file=sys.stderr)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _console.color_help()
        super().format_help(ctx, formatter)


def build(name: str, module: Any, panel: str) -> Command:
    """The command that `module.command` is, named `name`, in `panel` of `vlcli --help`."""
    app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    examples = "\n".join(("[bold]Examples[/bold]", *(f"  {e}" for e in module.EXAMPLES)))
    app.command(
        name,
        cls=Command,
        help=f"{paragraphs(module.command.__doc__)}\n\n{examples}",
        rich_help_panel=panel,
        no_args_is_help=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )(module.command)
    command = typer.main.get_command(app)
    assert isinstance(command, Command)
    command.adopt(module)
    return command


def paragraphs(text: str | None) -> str:
    """A docstring with each paragraph on one line: the help screen wraps it to the terminal's width."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n"))


def said_color(args: list[str]) -> str | None:
    """The value of --color on a command line, before anything of it is parsed: --help is to obey it too."""
    stop = args.index("--") if "--" in args else len(args)
    for i, arg in enumerate(args[:stop]):
        value = arg.removeprefix("--color=") if arg.startswith("--color=") else None
        if arg == "--color" and i + 1 < stop:
            value = args[i + 1]
        if value in ("auto", "always", "never"):
            return value
    return None


def _everywhere() -> list[Any]:
    app = typer.Typer(add_completion=False)
    app.command()(_options.everywhere)
    return typer.main.get_command(app).params
