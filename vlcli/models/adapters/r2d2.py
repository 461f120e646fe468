"""R2D2 and PRD2 (360's release): CLIP's vision transformer before its last norm, a BERT, and R2D2's ranking part, two
cross encoders and their matching heads.

The released models have no head for masked words; what the file holds of a cross encoder's own embeddings is read by
none of its models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

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
from vlcli.models.adapters.names import TEMPERATURE, Row, joined, pair, under
from vlcli.models.adapters.parts import (
    bert_table,
    plain,
    refuse_no_bert,
    refuse_not_global,
    subtle_notes,
)
from vlcli.models.adapters.source import Source
from vlcli.models.adapters.tokenizing import tokenizer_of
from vlcli.models.adapters.vit import count, tower, vit_in, vit_of

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


def _cross(ours: str, theirs: str) -> tuple[Row, ...]:
    """The rows of one cross encoder."""
    rows: list[Row] = []
    for mine, name in (("own", "attention"), ("other", "crossattention")):
        rows += pair(f"{mine}.query", f"{name}.self.query")
        rows += joined(f"{mine}.key_value", f"{name}.self.key", f"{name}.self.value")
        rows += pair(f"{mine}.out", f"{name}.output.dense")
        rows += pair(f"{mine}.norm", f"{name}.output.LayerNorm")
    rows += [
        *pair("fc", "intermediate.dense"),
        *pair("proj", "output.dense"),
        *pair("norm", "output.LayerNorm"),
    ]
    return under(rows, f"ranking.{ours}.layers.{{n}}.", f"{theirs}.encoder.layer.{{n}}.")


RANKING = (
    *_cross("text_cross", "text_joint_layer"),
    *_cross("image_cross", "img_joint_layer"),
    *pair("ranking.image_bridge", "img_joint_proj"),
    *pair("ranking.text_head", "itm_head"),
    *pair("ranking.image_head", "itm_head_i"),
)
# Stored beside the others and read by none of its models.
UNREAD = (
    POSITION_IDS,
    r"visual_encoder\.post_layernorm\..*",
    r"text_encoder\.pooler\..*",
    r"(text|img)_joint_layer\.(embeddings|pooler)\..*",
)
BESIDE_TOWERS = r"(text_joint_layer|img_joint_layer|img_joint_proj|itm_head|itm_head_i)\..*"


def recognises(source: Source) -> bool:
    return {
        "visual_encoder.embeddings.class_embedding",
        "text_proj.weight",
        "vision_proj.weight",
    } <= source.keys


def read(source: Source, asked: Asked) -> Checkpoint:
    file = str(source.weights)
    rows, unread = ((), (*UNREAD, BESIDE_TOWERS)) if asked.towers_only else (RANKING, UNREAD)
    state = place((*ROWS, *rows), source, NAME, known=unread)
    if "log_scale" not in state or not bool((source.state["temp"] > 0).all()):
        raise InputError("temp, its temperature, is missing or no positive number", file=file)
    vit = vit_of(state, file=file, activation="quick_gelu")
    architecture: dict[str, Any] = {
        **plain(state, bias=True),
        "image": tower(vit, preprocessing.at_size(preprocessing.R2D2, vit.size)) | {"final_norm": False},
        "text": bert_table(state, "bert", context=CONTEXT, layer_norm_eps=EPS, pad_token_id=0),
        "temperature": {"max_scale": MAX_SCALE},
    }
    if any(name.startswith("ranking.") for name in state):
        architecture["ranking"] = _ranking(state)
    tokenizer = tokenizer_of(source, asked, default="wordpiece-zh", padding_id=0)
    checkpoint = built(source, architecture, state, tokenizer)
    left = sum(re.fullmatch(BESIDE_TOWERS, name) is not None for name in source.state)
    if asked.towers_only and left:
        checkpoint.notes.append(f"the ranking part stays behind: {left} tensors")
    return checkpoint


def _ranking(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The `[model.ranking]` table: the depth that both encoders have, and BERT's ways. Whatever else is missing shows
    when the tensors are compared with the architecture's."""
    layers = max(count(state, f"ranking.{side}.layers.") for side in ("text_cross", "image_cross"))
    first = next((x for name, x in state.items() if name.endswith(".fc.weight") and "_cross" in name), None)
    width = 0 if first is None else first.shape[1]
    return {
        "layers": max(1, layers),
        "heads": max(1, width // 64),
        "intermediate": 1 if first is None else first.shape[0],
        "eps": EPS,
        "mask_head": False,
    }


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
    ranking = checkpoint.config.ranking
    if ranking is not None:
        if ranking.mask_head:
            raise CannotExpress("the release has no head for masked words; --towers-only leaves ranking out")
        if (ranking.eps, ranking.heads) != (EPS, max(1, encoder["hidden_size"] // 64)) or ranking.shared_head:
            raise CannotExpress(
                "its cross encoders have an eps of 1e-12, a head to 64 channels and two matching heads, the"
                " model's have not"
            )
    different = preprocessing.refuse_other(checkpoint.config.image.preprocess, preprocessing.R2D2)
    return Files(
        torch={"model": place_back((*ROWS, *RANKING), checkpoint)}, notes=subtle_notes(different, NAME)
    )


FORMAT = Format(NAME, "R2D2 and PRD2, a .pth", ".pth", recognises, read, express)
