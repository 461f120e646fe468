"""Chinese-CLIP's own `.pt` (OFA-Sys): OpenAI's layout for pictures, a BERT's for texts, in a trainer's state.

Its loader knows the sizes by the model's name; here they are read off the shapes: one head to 64 channels, 80 in ViT-H.
"""

from __future__ import annotations

from vlcli.errors import InputError
from vlcli.models.adapters import preprocessing
from vlcli.models.adapters.clip_names import OPENAI_IMAGE, OPENAI_PROJECTIONS, POSITION_IDS, bert
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
from vlcli.models.adapters.hf_chinese_clip import CONTEXT
from vlcli.models.adapters.names import under
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

NAME = "chinese-clip"

ROWS = (*under(OPENAI_IMAGE, "image.body.", "visual."), *bert("bert."), *OPENAI_PROJECTIONS)
POOLER = r"bert\.pooler\..*"  # no loader of theirs reads it
EPS = 1e-12


def recognises(source: Source) -> bool:
    return {"bert.embeddings.word_embeddings.weight", "text_projection"} <= source.keys


def _heads(width: int) -> int:
    return width // 80 if width == 1280 else max(1, width // 64)


def read(source: Source, asked: Asked) -> Checkpoint:
    file = str(source.weights)
    if "visual.attnpool.positional_embedding" in source.keys:
        raise InputError("its image tower is CLIP's ResNet, which has no home here", file=file)
    state = place(ROWS, source, NAME, known=[POSITION_IDS, POOLER])
    width = state["image.body.cls_token"].shape[-1] if "image.body.cls_token" in state else 0
    vit = vit_of(state, file=file, activation="quick_gelu", heads=_heads(width))
    text = bert_table(state, "bert", context=CONTEXT, layer_norm_eps=EPS, pad_token_id=0)
    tokenizer = tokenizer_of(source, asked, default="wordpiece-zh", padding_id=0)
    preprocess = preprocessing.at_size(preprocessing.CN_CLIP, vit.size)
    return built(source, {**plain(state), "image": tower(vit, preprocess), "text": text}, state, tokenizer)


def express(checkpoint: Checkpoint) -> Files:
    refuse_not_global(checkpoint)
    refuse_no_bert(checkpoint, kinds=("bert",))
    vit, encoder = vit_in(checkpoint), checkpoint.config.text.encoder
    if vit.heads != _heads(vit.width) or encoder["num_attention_heads"] != encoder["hidden_size"] // 64:
        raise CannotExpress("it has one head to 64 channels (80 in ViT-H), the model has not")
    if vit.activation != "quick_gelu" or encoder["hidden_act"] != "gelu":
        raise CannotExpress(
            "its activations are QuickGELU for pictures and GELU for texts, the model's are not"
        )
    if vit.eps != 1e-5 or encoder["layer_norm_eps"] != EPS:
        raise CannotExpress(
            "its LayerNorms have eps 1e-5 for pictures and 1e-12 for texts, the model's have not"
        )
    different = preprocessing.refuse_other(checkpoint.config.image.preprocess, preprocessing.CN_CLIP)
    state = place_back(ROWS, checkpoint)
    # What its loader asks of a trainer's state: that the names begin with `module.`
    state = {f"module.{name}": tensor for name, tensor in state.items()}
    return Files(torch={"epoch": 0, "step": 0, "state_dict": state}, notes=subtle_notes(different, NAME))


FORMAT = Format(NAME, "Chinese-CLIP's own .pt", ".pt", recognises, read, express)
