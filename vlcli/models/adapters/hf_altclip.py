"""transformers' `AltCLIPModel`: CLIP's vision transformer and XLM-R with a LayerNorm and a fully connected layer.

Its layers have two generations of names: `encoder.layer.N` (the release of 2022) and `encoder.layers.N` (modules since
transformers 5), for texts; transformers 5 stores the vision tower's under either. Read are all, written the release's.
"""

from __future__ import annotations

import re
from typing import Any

from vlcli.errors import InputError
from vlcli.models.adapters import preprocessing
from vlcli.models.adapters.clip_names import HF_IMAGE, HF_PROJECTIONS, POSITION_IDS, bert
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
from vlcli.models.adapters.hf_chinese_clip import BERT_SIZES
from vlcli.models.adapters.hf_clip import (
    VISION,
    configuration,
    directory,
    part,
    refuse_contradiction,
    vision,
)
from vlcli.models.adapters.names import pair, under
from vlcli.models.adapters.parts import bert_table, plain, refuse_no_bert, refuse_not_global
from vlcli.models.adapters.source import Source
from vlcli.models.adapters.tokenizing import length_of, tokenizer_of
from vlcli.models.adapters.vit import tower, vit_in

NAME = "hf-altclip"
CONTEXT = 77  # of the teacher's text tower, which AltCLIP's replaces (AltCLIP §3.1)

ROWS = (
    *under(HF_IMAGE, "image.body.", "vision_model."),
    *bert("text_model.roberta."),
    *pair("text_head.norm", "text_model.pre_LN"),
    *pair("text_head.fc", "text_model.transformation"),
    *HF_PROJECTIONS,
)
# AltCLIPTextConfig's defaults that no shape tells
TEXT: dict[str, Any] = {
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
}
_POOLER = r"text_model\.roberta\.pooler\..*"  # stored by some, read by none


def recognises(source: Source) -> bool:
    return {"text_model.transformation.weight", "visual_projection.weight"} <= source.keys


def one_generation(name: str) -> str:
    """Texts under `layer.N`, pictures under `layers.N`."""
    word = "layers" if name.startswith("vision_model.") else "layer"
    return re.sub(r"\.encoder\.layers?\.", f".encoder.{word}.", name)


def read(source: Source, asked: Asked) -> Checkpoint:
    config = configuration(source, "altclip")
    file = str(source.weights)
    if any(name.startswith("text_model.transformation_pre") for name in source.state):
        raise InputError("AltCLIP-m18 reads its penultimate layer too, which has no home here", file=file)
    renamed = {one_generation(name): tensor for name, tensor in source.state.items()}
    if len(renamed) != len(source.state):
        raise InputError("it holds layers under both generations of names", file=file)
    state = place(ROWS, source, NAME, known=[POSITION_IDS, _POOLER], state=renamed)
    vit = vision(config, state, file, VISION)
    text = TEXT | part(config, "text_config")
    positions = state["text.body.embeddings.position_embeddings.weight"].shape[0]
    length = length_of(source, CONTEXT, positions - text["pad_token_id"] - 1)
    table = bert_table(state, "xlm-roberta", context=length, **{name: text[name] for name in TEXT})
    refuse_contradiction(text, table["encoder"], BERT_SIZES, file)
    if "text_head.fc.weight" not in state:
        raise InputError("text_model.transformation.weight is missing", file=file)
    table |= {
        "padding_id": text["pad_token_id"],
        "head": {"width": state["text_head.fc.weight"].shape[0], "norm": True, "eps": text["layer_norm_eps"]},
    }
    tokenizer = tokenizer_of(source, asked, default=None, padding_id=text["pad_token_id"])
    preprocess = preprocessing.from_transformers(source, vit.size)
    return built(source, {**plain(state), "image": tower(vit, preprocess), "text": table}, state, tokenizer)


def express(checkpoint: Checkpoint) -> Files:
    refuse_not_global(checkpoint)
    refuse_no_bert(checkpoint, kinds=("xlm-roberta", "roberta"))
    vit, text = vit_in(checkpoint), checkpoint.config.text
    if text.head is None or not text.head.norm or text.head.eps != text.encoder["layer_norm_eps"]:
        raise CannotExpress(
            "a LayerNorm of its encoder's eps and a fully connected layer stand before its projection"
        )
    state = place_back(ROWS, checkpoint)
    config: dict[str, Any] = {
        **text.encoder,
        "model_type": "altclip_text_model",
        "project_dim": text.head.width,
    }
    return directory(checkpoint, state, NAME, ("AltCLIPModel", "altclip", "CLIPImageProcessor"), config, vit)


FORMAT = Format(NAME, "transformers' AltCLIPModel, a directory", "", recognises, read, express)
