"""transformers' `CLIPModel`: a directory of config.json, model.safetensors and the files of its processor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vlcli.errors import InputError
from vlcli.models.adapters import preprocessing
from vlcli.models.adapters.clip_names import HF_IMAGE, HF_PROJECTIONS, HF_TEXT, POSITION_IDS
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
from vlcli.models.adapters.vit import ViT, tower, vit_in, vit_of
from vlcli.text.wordpiece import WordPiece

NAME = "hf-clip"

ROWS = (
    *under(HF_IMAGE, "image.body.", "vision_model."),
    *under(HF_TEXT, "text.", "text_model."),
    *HF_PROJECTIONS,
)
# CLIPTextConfig's and CLIPVisionConfig's defaults, which a saved configuration may leave out
TEXT: dict[str, Any] = {
    "num_attention_heads": 8,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
VISION: dict[str, Any] = {"num_attention_heads": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
ACTIVATIONS = ("quick_gelu", "gelu")
ARGMAX = 2  # configurations with this eos_token_id read a text at its highest id


def recognises(source: Source) -> bool:
    return {"text_model.embeddings.token_embedding.weight", "visual_projection.weight"} <= source.keys


def read(source: Source, asked: Asked) -> Checkpoint:
    config = configuration(source, "clip")
    state = place(ROWS, source, NAME, known=[POSITION_IDS])
    file = str(source.weights)
    vit = vision(config, state, file, VISION)
    text = TEXT | part(config, "text_config")
    table = text_table(
        state,
        pooling="eot",
        heads=text["num_attention_heads"],
        activation=activation(text["hidden_act"], file),
        eps=text["layer_norm_eps"],
        tokenizer="clip-bpe",
    )
    refuse_contradiction(text, table, _TEXT_NAMES, file)
    tokenizer = tokenizer_of(source, asked, default="clip-bpe", padding_id=0)
    end = text["eos_token_id"]
    if end not in (ARGMAX, tokenizer.sep_id):
        raise InputError(
            f"its eos_token_id is {end}, its tokenizer ends a text with {tokenizer.sep_id}", file=file
        )
    if end == ARGMAX and tokenizer.sep_id != tokenizer.vocab_size - 1:
        raise InputError(
            "it reads a text at its highest id, and its tokenizer ends a text with another", file=file
        )
    preprocess = preprocessing.from_transformers(source, vit.size)
    architecture = {**plain(state), "image": tower(vit, preprocess), "text": table}
    return built(source, architecture, state, tokenizer)


_TEXT_NAMES = {
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "max_position_embeddings": "context",
    "vocab_size": "vocabulary",
}
_VISION_NAMES = {
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "patch_size": "patch",
    "image_size": "size",
    "intermediate_size": "mlp",
}


def configuration(source: Source, model_type: str) -> dict[str, Any]:
    """config.json, of the wanted model_type. InputError where it is missing or of another architecture."""
    config = source.settings.get("config.json")
    if config is None:
        raise InputError(
            "no config.json beside the weights: heads and activation stand nowhere else",
            file=str(source.weights),
        )
    if config.get("model_type", model_type) != model_type:
        cause = f"config.json says {config['model_type']!r}, the tensors are of {model_type!r}"
        raise InputError(cause, file=str(source.weights))
    return config


def part(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """text_config or vision_config; early configurations repeat it, and what is repeated wins, as in transformers."""
    return {**(config.get(name) or {}), **(config.get(f"{name}_dict") or {})}


def vision(
    config: Mapping[str, Any], state: Mapping[str, Any], file: str, defaults: Mapping[str, Any]
) -> ViT:
    """The vision transformer that config.json and the tensors agree on."""
    found = {**defaults, **part(config, "vision_config")}
    vit = vit_of(
        state,
        file=file,
        activation=activation(found["hidden_act"], file),
        heads=found["num_attention_heads"],
        eps=found["layer_norm_eps"],
    )
    refuse_contradiction(found, vars(vit), _VISION_NAMES, file)
    return vit


def activation(name: str, file: str) -> str:
    if name not in ACTIVATIONS:
        raise InputError(f"the activation {name!r} is none of {', '.join(ACTIVATIONS)}", file=file)
    return name


def refuse_contradiction(
    found: Mapping[str, Any], ours: Mapping[str, Any], names: Mapping[str, str], file: str
) -> None:
    """InputError where a configuration says another size than the tensors have."""
    for theirs, name in names.items():
        if theirs in found and found[theirs] != ours[name]:
            raise InputError(
                f"config.json says {theirs} = {found[theirs]}, the tensors {ours[name]}", file=file
            )


def express(checkpoint: Checkpoint) -> Files:
    refuse_not_global(checkpoint)
    refuse_no_clip_text(checkpoint)
    vit, text = vit_in(checkpoint), checkpoint.config.text
    end = checkpoint.tokenizer.sep_id
    # Our word pieces have one [SEP] a text, so that the last token is the first end there is.
    if text.pooling == "last" and not isinstance(checkpoint.tokenizer, WordPiece):
        raise CannotExpress("it reads a text at its first end-of-text token, the model at its last token")
    if end < 0 or end == ARGMAX:
        raise CannotExpress(f"its texts end with a token, and not with id {ARGMAX}")
    state = place_back(ROWS, checkpoint)
    text_config = {
        "model_type": "clip_text_model",
        "vocab_size": text.vocabulary,
        "hidden_size": text.width,
        "intermediate_size": 4 * text.width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "max_position_embeddings": text.context,
        "hidden_act": text.activation,
        "layer_norm_eps": text.eps,
        "projection_dim": checkpoint.config.dim,
        "pad_token_id": checkpoint.tokenizer.pad_id,
        "bos_token_id": checkpoint.tokenizer.cls_id,
        "eos_token_id": end,
    }
    return directory(checkpoint, state, NAME, ("CLIPModel", "clip", "CLIPImageProcessor"), text_config, vit)


def directory(
    checkpoint: Checkpoint,
    state: dict[str, Tensor],
    format: str,
    names: tuple[str, str, str],
    text: dict[str, Any],
    vit: ViT,
) -> Files:
    """One of transformers' CLIPs: `names` are those of its model, its type and its image processor. Where the
    processor's own way differs a little from the model's, there is a note."""
    architecture, model_type, processor = names
    if vit.activation not in ACTIVATIONS:
        raise CannotExpress(f"it has no activation {vit.activation}")
    vision_config = {
        "model_type": f"{model_type}_vision_model",
        "hidden_size": vit.width,
        "intermediate_size": vit.mlp,
        "num_hidden_layers": vit.layers,
        "num_attention_heads": vit.heads,
        "num_channels": 3,
        "image_size": vit.size,
        "patch_size": vit.patch,
        "hidden_act": vit.activation,
        "layer_norm_eps": vit.eps,
        "projection_dim": checkpoint.config.dim,
    }
    config = {
        "architectures": [architecture],
        "model_type": model_type,
        "projection_dim": checkpoint.config.dim,
        "logit_scale_init_value": round(state["logit_scale"].item(), 4),
        "dtype": str(state["visual_projection.weight"].dtype).removeprefix("torch."),
        "text_config": text,
        "vision_config": vision_config,
    }
    prepared, different = preprocessing.to_transformers(checkpoint.config.image.preprocess, processor)
    prepared["processor_class"] = architecture.replace("Model", "Processor")
    return Files(
        json={"config.json": config, "preprocessor_config.json": prepared},
        tensors={"model.safetensors": state},
        tokenizer=checkpoint.tokenizer,
        length=checkpoint.config.text.context,
        notes=subtle_notes(different, format),
    )


FORMAT = Format(NAME, "transformers' CLIPModel, a directory", "", recognises, read, express)
