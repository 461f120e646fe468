"""`finetune --task caption`: what it asks of the checkpoint that it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlcli.errors import UsageError

if TYPE_CHECKING:
    from vlcli.commands._console import Console


def require_r2d2(checkpoint: str) -> None:
    """UsageError for another kind, before anything heavy is imported."""
    from vlcli.models.quickcheck import kind_of

    if (kind := kind_of(checkpoint)) != "r2d2":
        raise UsageError(
            f"{checkpoint} is a checkpoint of kind {kind!r}; --task caption starts from an 'r2d2'"
        )


def start(source: Any, config: Any, file: Path, console: Console) -> Any:
    """The captioner, after a line about what it does not take of the R2D2."""
    from vlcli.training.captioning import captioner_of

    model, left = captioner_of(source, config, file)
    if source.ranking.mask_head is None:
        console.warn("the R2D2 has no head for masked words: what tells words apart starts at random")
    console.note(f"stays behind: {len(left)} tensors that write nothing, {left[0]} first")
    return model
