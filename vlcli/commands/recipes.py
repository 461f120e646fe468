"""vlcli recipes: list, show, validate."""

from __future__ import annotations

from typing import Annotated, Literal

from typer import Argument

from vlcli.commands import _complete as complete
from vlcli.commands._options import Json, Set

EXAMPLES = ("vlcli recipes list", "vlcli recipes show lit-filip", "vlcli recipes validate my.toml")


def command(
    action: Annotated[Literal["list", "show", "validate"], Argument(help="What to do.")] = "list",
    recipes: Annotated[
        list[str] | None,
        Argument(metavar="NAME|FILE.toml", help="Default: all named ones.", autocompletion=complete.recipes),
    ] = None,
    overrides: Set = None,
    json_: Json = False,
) -> None:
    """List, show or validate recipes.

    `show` prints the resolved TOML (extends followed, --set applied); `validate` exits 2 at the first recipe that
    does not hold, naming the key.
    """
    from vlcli.recipes import load_recipe, names, to_toml

    chosen = [load_recipe(name, overrides) for name in recipes or names()]
    if json_:
        import orjson

        print(
            orjson.dumps(
                {r.name: r.model_dump(mode="json") for r in chosen}, option=orjson.OPT_INDENT_2
            ).decode()
        )
    elif action == "show":
        print("\n".join(to_toml(recipe) for recipe in chosen), end="")
    elif action == "list":
        width = max(len(recipe.name) for recipe in chosen)
        for recipe in chosen:
            print(f"{recipe.name:{width}}  {recipe.title}")
    else:
        for recipe in chosen:
            print(f"{recipe.name}: ok")
