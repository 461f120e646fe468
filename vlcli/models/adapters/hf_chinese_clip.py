"""transformers' `ChineseCLIPModel`: CLIP's vision transformer and a BERT read at [CLS], in a directory."""

from __future__ import annotations

from typing import Any

from vlcli.models.adapters import preprocessing
from vlcli.models.adapters.clip_names import HF_IMAGE, HF_PROJECTIONS, POSITION_IDS, bert
from vlcli.models.adapters.format import Asked, Checkpoint, Files, Format, built, place, place_back
from vlcli.models.adapters.hf_clip import (
    VISION,
    configuration,
    directory,
    part,
    refuse_contradiction,
    vision,
)
from vlcli.models.adapters.names import under
from vlcli.models.adapters.parts import bert_table, plain, refuse_no_bert, refuse_not_global
from vlcli.models.adapters.source import Source
from vlcli.models.adapters.tokenizing import length_of, tokenizer_of
from vlcli.models.adapters.vit import tower, vit_in

NAME = "hf-chinese-clip"
CONTEXT = 52  # of Chinese-CLIP's own code

ROWS = (*under(HF_IMAGE, "image.body.", "vision_model."), *bert("text_model."), *HF_PROJECTIONS)
# ChineseCLIPTextConfig's defaults that no shape tells
TEXT: dict[str, Any] = {
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
}
BERT_SIZES = {
    name: name
    for name in (
        "hidden_size",
        "num_hidden_layers",
        "intermediate_size",
        "vocab_size",
        "max_position_embeddings",
        "type_vocab_size",
    )
}


def recognises(source: Source) -> bool:
    return {"text_model.embeddings.word_embeddings.weight", "visual_projection.weight"} <= source.keys


def read(source: Source, asked: Asked) -> Checkpoint:
    config = configuration(source, "chinese_clip")
    # a pooler that nothing reads came with the first conversions
    state = place(ROWS, source, NAME, known=[POSITION_IDS, r"text_model\.pooler\..*"])
    file = str(source.weights)
    vit = vision(config, state, file, VISION)
    text = TEXT | part(config, "text_config")
    positions = state["text.body.embeddings.position_embeddings.weight"].shape[0]
    table = bert_table(
        state, "bert", context=length_of(source, CONTEXT, positions), **{name: text[name] for name in TEXT}
    )
    refuse_contradiction(text, table["encoder"], BERT_SIZES, file)
    tokenizer = tokenizer_of(source, asked, default="wordpiece-zh", padding_id=text["pad_token_id"])
    preprocess = preprocessing.from_transformers(source, vit.size)
    return built(source, {**plain(state), "image": tower(vit, preprocess), "text": table}, state, tokenizer)


def express(checkpoint: Checkpoint) -> Files:
    refuse_not_global(checkpoint)
    refuse_no_bert(checkpoint, kinds=("bert",))
    vit = vit_in(checkpoint)
    state = place_back(ROWS, checkpoint)
    text: dict[str, Any] = {**checkpoint.config.text.encoder, "model_type": "chinese_clip_text_model"}
    names = ("ChineseCLIPModel", "chinese_clip", "ChineseCLIPImageProcessor")
    return directory(checkpoint, state, NAME, names, text, vit)


FORMAT = Format(NAME, "transformers' ChineseCLIPModel, a directory", "", recognises, read, express)
