"""The two towers of R2D2 and PRD2 (360's release): CLIP's vision transformer before its last norm, and a BERT.

R2D2's checkpoints hold a ranking part too (two cross encoders and their heads), which is no part of a dual encoder:
without --towers-only its tensors are an error that names them.
"""

from __future__ import annotations

import re
from typing import Any

from vlcli.errors import InputError
from vlcli.models.adapters import preprocessing
from vlcli.models.adapters.clip_names import HF_IMAGE, POSITION_IDS, bert
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
from vlcli.models.adapters.names import TEMPERATURE, Row, UnplacedError, pair, under
from vlcli.models.adapters.parts import (
    bert_table,
    plain,
    refuse_no_bert,
    refuse_not_global,
    subtle_notes,
)
from vlcli.models.adapters.source import Source
from vlcli.models.adapters.tokenizing import tokenizer_of
from vlcli.models.adapters.vit import tower, vit_in, vit_of

NAME = "r2d2"
CONTEXT = 64
EPS = 1e-12
MAX_SCALE = 1000.0  # its temperature is kept within [0.001, 0.5]

ROWS = (
    *under(
        (row for row in HF_IMAGE if "post_layernorm" not in row.parts[0]), "image.body.", "visual_encoder."
    ),
    *bert("text_encoder."),
    *pair("image_projection", "vision_proj"),
    *pair("text_projection", "text_proj"),
    Row("log_scale", "temp", TEMPERATURE),
)
# Stored with the towers and read by none of its models.
UNREAD = (POSITION_IDS, r"visual_encoder\.post_layernorm\..*", r"text_encoder\.pooler\..*")
RANKING = r"(text_joint_layer|img_joint_layer|img_joint_proj|itm_head|itm_head_i)\..*"


def recognises(source: Source) -> bool:
    return {
        "visual_encoder.embeddings.class_embedding",
        "text_proj.weight",
        "vision_proj.weight",
    } <= source.keys


def read(source: Source, asked: Asked) -> Checkpoint:
    file = str(source.weights)
    ranking = sorted(name for name in source.state if re.fullmatch(RANKING, name))
    if ranking and not asked.towers_only:
        remedy = "--towers-only leaves them out"
        raise UnplacedError(
            "a dual encoder has no place for the ranking part,", ranking, file=file, remedy=remedy
        )
    state = place(ROWS, source, NAME, known=[*UNREAD, RANKING])
    if "log_scale" not in state or not bool((source.state["temp"] > 0).all()):
        raise InputError("temp, its temperature, is missing or no positive number", file=file)
    vit = vit_of(state, file=file, activation="quick_gelu")
    architecture: dict[str, Any] = {
        **plain(state, bias=True),
        "image": tower(vit, preprocessing.at_size(preprocessing.R2D2, vit.size)) | {"final_norm": False},
        "text": bert_table(state, "bert", context=CONTEXT, layer_norm_eps=EPS, pad_token_id=0),
        "temperature": {"max_scale": MAX_SCALE},
    }
    tokenizer = tokenizer_of(source, asked, default="wordpiece-zh", padding_id=0)
    checkpoint = built(source, architecture, state, tokenizer)
    if ranking:
        checkpoint.notes.append(f"the ranking part stays behind: {len(ranking)} tensors")
    return checkpoint


def express(checkpoint: Checkpoint) -> Files:
    refuse_not_global(checkpoint, bias=True)
    refuse_no_bert(checkpoint, kinds=("bert",))
    vit, encoder = vit_in(checkpoint), checkpoint.config.text.encoder
    if checkpoint.config.image.final_norm:
        raise CannotExpress("it reads the image tower before its last norm, the model behind it")
    if (vit.activation, encoder["hidden_act"]) != ("quick_gelu", "gelu") or encoder["layer_norm_eps"] != EPS:
        raise CannotExpress("its towers have QuickGELU, GELU and a text eps of 1e-12, the model's have not")
    if vit.eps != 1e-5 or vit.heads != vit.width // 64:
        raise CannotExpress(
            "its image tower has LayerNorms of 1e-5 and a head to 64 channels, the model's has not"
        )
    different = preprocessing.refuse_other(checkpoint.config.image.preprocess, preprocessing.R2D2)
    return Files(torch={"model": place_back(ROWS, checkpoint)}, notes=subtle_notes(different, NAME))


FORMAT = Format(NAME, "R2D2's and PRD2's two towers, a .pth", ".pth", recognises, read, express)
