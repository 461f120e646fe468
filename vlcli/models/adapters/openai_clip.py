"""OpenAI's CLIP: one `.pt`, a state dict or the TorchScript archive it is downloaded as. The vision transformers; the
ResNets have no home here.

Its loader knows sizes by the shapes, heads as one to 64 channels, QuickGELU, LayerNorms of 1e-5, and prepares pictures
and texts by code: nothing of these stands in the file.
"""

from __future__ import annotations

from typing import Any

import torch

from vlcli.errors import InputError
from vlcli.models.adapters import preprocessing
from vlcli.models.adapters.clip_names import OPENAI_IMAGE, OPENAI_PROJECTIONS, OPENAI_SCALARS, openai_text
from vlcli.models.adapters.format import (
    Asked,
    CannotExpress,
    Checkpoint,
    Files,
    Format,
    built,
    place,
    place_back,
)
from vlcli.models.adapters.names import under
from vlcli.models.adapters.parts import (
    plain,
    refuse_no_clip_text,
    refuse_not_global,
    subtle_notes,
    text_table,
)
from vlcli.models.adapters.source import Source
from vlcli.models.adapters.tokenizing import tokenizer_of
from vlcli.models.adapters.vit import tower, vit_in, vit_of

NAME = "openai-clip"

ROWS = (
    *under(OPENAI_IMAGE, "image.body.", "visual."),
    *under(openai_text(), "text."),
    *OPENAI_PROJECTIONS,
)


def is_layout(source: Source) -> bool:
    """OpenAI's names, which open_clip's plain models share."""
    return {"visual.proj", "token_embedding.weight", "text_projection"} <= source.keys or is_resnet(source)


def is_resnet(source: Source) -> bool:
    return "visual.attnpool.positional_embedding" in source.keys


def recognises(source: Source) -> bool:
    """Certain where OpenAI's three numbers stand beside the weights, or the file is TorchScript."""
    mine = source.scripted or set(OPENAI_SCALARS) <= source.keys
    return is_layout(source) and mine and "open_clip_config.json" not in source.settings


def read(source: Source, asked: Asked) -> Checkpoint:
    if is_resnet(source):
        raise InputError(
            "its image tower is CLIP's ResNet, which has no home here: the vision transformers have",
            file=str(source.weights),
        )
    state = place(ROWS, source, NAME, known=OPENAI_SCALARS)
    vit = vit_of(state, file=str(source.weights), activation="quick_gelu")
    tokenizer = tokenizer_of(source, asked, default="clip-bpe", padding_id=0)
    architecture: dict[str, Any] = {
        **plain(state),
        "image": tower(vit, preprocessing.at_size(preprocessing.OPENAI, vit.size)),
        "text": text_table(state, activation="quick_gelu", pooling="eot") | {"tokenizer": "clip-bpe"},
    }
    return built(source, architecture, state, tokenizer)


def express(checkpoint: Checkpoint) -> Files:
    refuse_not_global(checkpoint)
    refuse_no_clip_text(checkpoint)
    vit, text = vit_in(checkpoint), checkpoint.config.text
    if text.pooling != "eot" or checkpoint.tokenizer.sep_id != text.vocabulary - 1:
        raise CannotExpress("it reads a text at its highest id, which is no end of the model's texts")
    for name, heads, width in (("image", vit.heads, vit.width), ("text", text.heads, text.width)):
        if heads != width // 64:
            raise CannotExpress(f"it has one head to 64 channels, the {name} tower {heads} to {width}")
    if (vit.activation, text.activation) != ("quick_gelu", "quick_gelu"):
        raise CannotExpress("its activation is QuickGELU, the model's is not")
    if (vit.eps, text.eps) != (1e-5, 1e-5):
        raise CannotExpress("its LayerNorms have eps 1e-5, the model's have not")
    if vit.mlp != 4 * vit.width:
        raise CannotExpress("the layers of its MLPs are four times as wide as the tower")
    different = preprocessing.refuse_other(checkpoint.config.image.preprocess, preprocessing.OPENAI)
    state = place_back(ROWS, checkpoint)
    for name, value in zip(OPENAI_SCALARS, (vit.size, text.context, text.vocabulary), strict=True):
        state[name] = torch.tensor(value)
    return Files(torch=state, notes=subtle_notes(different, NAME))


FORMAT = Format(NAME, "OpenAI's CLIP, a .pt", ".pt", recognises, read, express)
