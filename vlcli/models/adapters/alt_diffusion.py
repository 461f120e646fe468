"""The text side of an AltDiffusion directory: text_encoder/ (XLM-R and a fully connected layer) and tokenizer/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vlcli.errors import InputError, UsageError
from vlcli.models.adapters.clip_names import POSITION_IDS, bert
from vlcli.models.adapters.format import place, refuse_shapes
from vlcli.models.adapters.hf_altclip import CONTEXT, TEXT, one_generation
from vlcli.models.adapters.names import pair
from vlcli.models.adapters.parts import bert_table
from vlcli.models.adapters.source import Source, read_json, read_weights
from vlcli.models.adapters.tokenizing import length_of
from vlcli.models.checkpoint import first_problem
from vlcli.models.config import TextEncoderConfig
from vlcli.models.text_encoder import TextEncoder
from vlcli.text.model_tokenizers import open_tokenizer

NAME = "AltDiffusion's text encoder"
WEIGHTS = "model.safetensors"
ROWS = (*bert("roberta."), *pair("text_head.fc", "transformation"))
# Stored by some and read by none: a pooler, CLIP's scale, and the LayerNorm that AltCLIP has and AltDiffusion skips.
UNREAD = (POSITION_IDS, r"roberta\.pooler\..*", "logit_scale", r"pre_LN\..*")


def has_text_side(folder: Path) -> bool:
    """Whether an AltDiffusion directory's own text encoder can be read: from safetensors alone."""
    return (folder / "text_encoder" / WEIGHTS).is_file() and (folder / "tokenizer").is_dir()


def read_text_side(folder: Path) -> TextEncoder:
    """The text encoder of an AltDiffusion directory. InputError for what is damaged or of another layout."""
    weights = folder / "text_encoder" / WEIGHTS
    config_file = weights.with_name("config.json")
    if not config_file.is_file():
        raise UsageError(f"{weights.parent}: no config.json")
    config = read_json(config_file)
    if config.get("has_pre_transformation"):
        raise InputError(
            "AltDiffusion-m18's text encoder reads its penultimate layer, which has no home here",
            file=str(config_file),
        )
    renamed = {one_generation(name): tensor for name, tensor in read_weights(weights).items()}
    source = Source(folder, weights, renamed, {"config.json": config}, folder / "tokenizer")
    state = place(ROWS, source, NAME, known=UNREAD)
    text: dict[str, Any] = TEXT | {key: value for key, value in config.items() if key in TEXT}
    positions = state["text.body.embeddings.position_embeddings.weight"].shape[0]
    length = length_of(source, CONTEXT, positions - text["pad_token_id"] - 1)
    table = bert_table(state, "xlm-roberta", context=length, **text)
    head = {"width": state["text_head.fc.weight"].shape[0], "norm": False}
    table |= {"padding_id": text["pad_token_id"], "head": head}
    try:
        architecture = TextEncoderConfig.model_validate({"text": table})
    except ValidationError as error:
        raise InputError(f"no model of ours: {first_problem(error)}", file=str(config_file)) from error
    model = TextEncoder(
        architecture, open_tokenizer(str(folder / "tokenizer"), padding_id=text["pad_token_id"])
    )
    refuse_shapes(model.state_dict(), state, str(weights))
    model.load_state_dict(state)
    return model.eval()
