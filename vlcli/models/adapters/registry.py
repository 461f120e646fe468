"""The foreign formats there are, and which of them a checkpoint is in."""

from __future__ import annotations

from vlcli.errors import InputError, UsageError
from vlcli.models.adapters import (
    chinese_clip,
    hf_altclip,
    hf_chinese_clip,
    hf_clip,
    open_clip,
    openai_clip,
    r2d2,
    timm_tower,
    wukong,
)
from vlcli.models.adapters.format import Format
from vlcli.models.adapters.names import listed
from vlcli.models.adapters.source import Source
from vlcli.models.formats import FOREIGN

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (
        openai_clip,
        open_clip,
        hf_clip,
        hf_chinese_clip,
        chinese_clip,
        hf_altclip,
        wukong,
        r2d2,
        timm_tower,
    )
}
assert list(FORMATS) == FOREIGN


def recognise(source: Source, said: str | None = None) -> Format:
    """The format of a checkpoint, by its tensors' names and the files beside them, or the one that --from names.

    UsageError where two are as likely, InputError where none is.
    """
    if said is not None:
        return FORMATS[said]
    found = [format for format in FORMATS.values() if format.recognises(source)]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        names = " or ".join(format.name for format in found)
        raise UsageError(f"{source.path}: it may be {names}", remedy="--from says which")
    if openai_clip.is_layout(source):
        raise UsageError(
            f"{source.path}: OpenAI's CLIP and open_clip share these names and differ in the activation",
            remedy="--from openai-clip, or --model-config with open_clip's JSON of the model",
        )
    raise InputError(f"no known format has {listed(sorted(source.state))}", file=str(source.weights))
