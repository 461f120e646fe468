"""open_clip: its own configuration as JSON, and weights in OpenAI's layout, where `CustomTextCLIP` puts `text.` before
the text tower's names. A directory as it is pushed to a hub, or any file of weights with --model-config.

Known are its own vision transformer and its own causal text transformer as CLIP has them. A setting of its
configuration that changes a model and is not known here is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlcli.errors import InputError, UsageError
from vlcli.models.adapters import openai_clip, preprocessing
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
from vlcli.models.adapters.names import TRANSPOSED, Row, under
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

NAME = "open_clip"
CONFIG = "open_clip_config.json"

_OUTER = (OPENAI_PROJECTIONS[0], OPENAI_PROJECTIONS[2])  # the image side's projection, the temperature
ROWS = openai_clip.ROWS
CUSTOM_ROWS = (
    *under(OPENAI_IMAGE, "image.body.", "visual."),
    *under(openai_text(), "text.", "text."),
    Row("text_projection.weight", "text.text_projection", TRANSPOSED),
    *_OUTER,
)
# A mask that follows from the context.
MASK = r"(text\.)?attn_mask"

_BOTH = {
    "ls_init_value": None,
    "act_kwargs": None,
    "output_tokens": False,
    "mlp_ratio": 4.0,
    "block_type": None,
}
_BOTH |= dict.fromkeys(
    ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"), False
)
# What must stand as CLIP has it: (name, value). Sizes stand in the tensors.
VISION = {
    **_BOTH,
    "attentional_pool": False,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "final_ln_after_pool": False,
    "pool_type": "tok",
    "timm_model_name": None,
}
TEXT = {
    **_BOTH,
    "hf_model_name": None,
    "embed_cls": False,
    "no_causal_mask": False,
    "final_ln_after_pool": False,
    "proj_bias": False,
    "proj_type": "linear",
    "tokenizer_mode": None,
    "tokenizer_kwargs": None,
}
# Of no weight here: training's, or of parts that are refused above.
IDLE = (
    "patch_dropout",
    "attn_pooler_queries",
    "attn_pooler_heads",
    "pad_id",
    "hf_tokenizer_name",
    "mlp_ratio",
)
IDLE_PREFIXES = ("timm_", "hf_")
SIZES = ("layers", "width", "head_width", "patch_size", "image_size", "context_length", "vocab_size", "heads")
READ = ("norm_kwargs", "pool_type", "eos_id")
FREE_MLP = "mlp_ratio"  # of the vision tower: the tensors say it


def recognises(source: Source) -> bool:
    custom = {"visual.proj", "text.token_embedding.weight"} <= source.keys
    known = CONFIG in source.settings and any(name.startswith("visual.") for name in source.state)
    return custom or known


def read(source: Source, asked: Asked) -> Checkpoint:
    file = str(source.weights)
    found = source.settings.get(CONFIG)
    if found is None:
        raise UsageError(
            f"{source.path}: open_clip's weights say neither heads nor activation",
            remedy="name the model's JSON: --model-config",
        )
    place_of = str(source.folder / CONFIG) if source.folder is not None else CONFIG
    model = found.get("model_cfg", found)
    vision, text = model.get("vision_cfg"), model.get("text_cfg")
    if not isinstance(vision, dict) or not isinstance(text, dict):
        raise InputError("no vision_cfg and text_cfg", file=place_of)
    if isinstance(vision.get("layers"), list):
        raise InputError("its image tower is a ResNet, which has no home here", file=place_of)
    _refuse_unknown(vision, {**VISION, FREE_MLP: vision.get(FREE_MLP)}, "vision_cfg", place_of)
    _refuse_unknown(text, TEXT, "text_cfg", place_of)
    custom = "text.token_embedding.weight" in source.state
    state = place(CUSTOM_ROWS if custom else ROWS, source, NAME, known=[*OPENAI_SCALARS, MASK])
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    width = vision.get("width", 768)
    vit = vit_of(
        state,
        file=file,
        activation=activation,
        heads=width // vision.get("head_width", 64),
        eps=_eps(vision, place_of),
    )
    sizes = ((vision, "width", vit.width), (vision, "layers", vit.layers), (vision, "patch_size", vit.patch))
    for table, name, size in (*sizes, (vision, "image_size", vit.size)):
        if name in table and table[name] != size:
            raise InputError(f"{place_of} says {name} = {table[name]}, the tensors {size}", file=file)
    tokenizer = tokenizer_of(
        source if text.get("hf_tokenizer_name") else _alone(source),
        asked,
        default=None if text.get("hf_tokenizer_name") else "clip-bpe",
        padding_id=0,
    )
    end = tokenizer.sep_id
    pool = text.get("pool_type", "argmax")
    if not (pool == "argmax" and end == tokenizer.vocab_size - 1) and not (
        pool == "eos" and end == text.get("eos_id", 2)
    ):
        raise InputError(
            f"text_cfg.pool_type {pool!r} does not read the id {end} that ends its texts", file=place_of
        )
    preprocess = preprocessing.from_open_clip(found.get("preprocess_cfg", {}), vit.size, place_of)
    architecture = {
        **plain(state),
        "image": tower(vit, preprocess),
        "text": text_table(
            state,
            pooling="eot",
            heads=text.get("heads", 8),
            activation=activation,
            eps=_eps(text, place_of),
            tokenizer="clip-bpe",
        ),
    }
    return built(source, architecture, state, tokenizer)


def _alone(source: Source) -> Source:
    """The same without the files beside it: open_clip reads a tokenizer there only where its configuration says so."""
    return Source(source.path, source.weights, source.state, source.settings)


def _refuse_unknown(table: Mapping[str, Any], wanted: Mapping[str, Any], name: str, file: str) -> None:
    for key, value in table.items():
        if key in wanted:
            if (value or None) != (wanted[key] or None):
                raise InputError(f"{name}.{key} = {value!r} is not known here", file=file)
        elif key not in (*IDLE, *SIZES, *READ) and not key.startswith(IDLE_PREFIXES):
            raise InputError(f"{name}.{key} is not known here", file=file)


def _eps(table: Mapping[str, Any], file: str) -> float:
    norm = table.get("norm_kwargs") or {}
    if set(norm) - {"eps"}:
        raise InputError(f"norm_kwargs {norm} are not known here", file=file)
    return norm.get("eps", 1e-5)


def express(checkpoint: Checkpoint) -> Files:
    refuse_not_global(checkpoint)
    refuse_no_clip_text(checkpoint)
    vit, text = vit_in(checkpoint), checkpoint.config.text
    if vit.activation != text.activation:
        raise CannotExpress(
            f"it has one activation, the model {vit.activation} for pictures and {text.activation} for texts"
        )
    if vit.width % vit.heads:
        raise CannotExpress(f"{vit.heads} heads do not divide {vit.width} channels")
    tokenizer = checkpoint.tokenizer
    if text.pooling != "eot":
        raise CannotExpress("it reads a text at its end-of-text token, the model at its last token")
    preprocess, different = preprocessing.to_open_clip(checkpoint.config.image.preprocess)
    vision_cfg: dict[str, Any] = {
        "image_size": vit.size,
        "layers": vit.layers,
        "width": vit.width,
        "head_width": vit.width // vit.heads,
        "mlp_ratio": vit.mlp / vit.width if vit.mlp % vit.width == 0 else (vit.mlp + 0.5) / vit.width,
        "patch_size": vit.patch,
    }
    text_cfg: dict[str, Any] = {
        "context_length": text.context,
        "vocab_size": text.vocabulary,
        "width": text.width,
        "heads": text.heads,
        "layers": text.layers,
    }
    for table, eps in ((vision_cfg, vit.eps), (text_cfg, text.eps)):
        if eps != 1e-5:
            table["norm_kwargs"] = {"eps": eps}
    model_cfg: dict[str, Any] = {
        "embed_dim": checkpoint.config.dim,
        "vision_cfg": vision_cfg,
        "text_cfg": text_cfg,
    }
    if vit.activation == "quick_gelu":
        model_cfg["quick_gelu"] = True
    if not is_clip_bpe(checkpoint):
        # any name: in a directory it reads the files there. Its text tower alone pools at an id that is not the highest
        text_cfg |= {"hf_tokenizer_name": "local", "pool_type": "eos", "eos_id": tokenizer.sep_id}
        model_cfg["custom_text"] = True
    custom = "custom_text" in model_cfg
    state = place_back(CUSTOM_ROWS if custom else ROWS, checkpoint)
    return Files(
        json={CONFIG: {"model_cfg": model_cfg, "preprocess_cfg": preprocess}},
        tensors={"open_clip_model.safetensors": state},
        tokenizer=tokenizer,
        length=text.context,
        notes=subtle_notes(different, NAME),
    )


def is_clip_bpe(checkpoint: Checkpoint) -> bool:
    """Whether texts become what CLIP's own tokenizer makes of them: 49,408 tokens, the last of which ends a text."""
    tokenizer = checkpoint.tokenizer
    return tokenizer.vocab_size == 49_408 and tokenizer.sep_id == 49_407


FORMAT = Format(NAME, "open_clip, a directory", "", recognises, read, express)
