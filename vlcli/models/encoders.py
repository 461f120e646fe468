"""Text encoders of transformers by name, as transformers' own configurations; nothing here imports it for those.

Sizes: BERT's miniatures (Turc et al. 2019), BERT (Devlin et al. 2019), RoBERTa-wwm-ext (Cui et al. 2019), XLM-R
(Conneau et al. 2020).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def _bert(layers: int, width: int, heads: int, vocabulary: int = 30522) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }


def _xlm_roberta(layers: int, width: int, heads: int) -> dict[str, Any]:
    return _bert(layers, width, heads, 250_002) | {
        "model_type": "xlm-roberta",
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }


ENCODERS: dict[str, dict[str, Any]] = {
    "bert-mini": _bert(4, 256, 4),
    "bert-small": _bert(4, 512, 8),
    "bert-medium": _bert(8, 512, 8),
    "bert-base": _bert(12, 768, 12),
    "bert-large": _bert(24, 1024, 16),
    "rbt3": _bert(3, 768, 12, 21128),
    "roberta-wwm-ext": _bert(12, 768, 12, 21128),
    "roberta-wwm-ext-large": _bert(24, 1024, 16, 21128),
    "xlm-roberta-base": _xlm_roberta(12, 768, 12),
    "xlm-roberta-large": _xlm_roberta(24, 1024, 16),
}

# What is the same under several names in transformers' configurations; the first one found counts.
_WIDTH = ("hidden_size", "d_model", "dim", "n_embd")
_LAYERS = ("num_hidden_layers", "n_layers", "num_layers", "n_layer")
_HEADS = ("num_attention_heads", "n_heads", "num_heads", "n_head")
_DROPOUT = ("hidden_dropout_prob", "dropout", "dropout_rate", "hidden_dropout")
_ATTENTION = ("attention_probs_dropout_prob", "attention_dropout")
_SIZES = (("width", _WIDTH), ("layers", _LAYERS), ("heads", _HEADS))
# Facts about a file, a task or a call, not about the architecture.
_FOREIGN = {
    *("transformers_version", "architectures", "id2label", "label2id", "dtype", "torch_dtype", "auto_map"),
    *("return_dict", "output_hidden_states", "output_attentions", "use_cache", "problem_type"),
}


def resolved(text: dict[str, Any]) -> dict[str, Any]:
    """The values of a `[model.text]` table, those that the encoder decides filled in. Resolving twice changes nothing.

    Raises ValueError for an encoder that nobody knows and for values that contradict it.
    """
    if text.get("kind", "causal") != "transformers":
        for key in ("name", "encoder"):
            if text.get(key):
                raise ValueError(f'text.{key} belongs to kind = "transformers"')
        return text
    name = text.get("name") or ""
    encoder = _encoder(name, dict(text.get("encoder") or {}))
    result = {**text, "encoder": encoder, "padding_id": encoder.get("pad_token_id", 0)}
    for key, names in _SIZES:
        theirs = next((one for one in names if one in encoder), None)
        if theirs is None:
            raise ValueError(f"text.encoder: a configuration without {names[0]}")
        if text.get(key, encoder[theirs]) != encoder[theirs]:
            raise ValueError(f"text.{key} is {text[key]}, the encoder's {theirs} {encoder[theirs]}")
        result[key] = encoder[theirs]
    if "vocab_size" not in encoder:
        raise ValueError("text.encoder: a configuration without vocab_size")
    encoder["vocab_size"] = result["vocabulary"] = text.get("vocabulary", encoder["vocab_size"])
    own = next((encoder[key] for key in _DROPOUT if key in encoder), 0.0)
    result["dropout"] = text.get("dropout", own)
    if result["dropout"] != own:
        encoder.update({key: result["dropout"] for key in (*_DROPOUT, *_ATTENTION) if key in encoder})
    if "context" in text:
        _refuse_long_context(encoder, text["context"])
    if name and Path(name).is_dir():  # a label from now on: the configuration is complete
        result["name"] = f"{Path(name).name}/"
    return result


def _encoder(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """transformers' configuration of `name`, with the values of `given` in place of its own."""
    if "model_type" in given:
        sizes = ENCODERS.get(name, {})
        for key in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
            if sizes.get(key, given.get(key)) != given.get(key):
                raise ValueError(
                    f"text.name is {name!r}, whose {key} is {sizes[key]}, but text.encoder says {given.get(key)}"
                )
        base: dict[str, Any] = {}
    elif name in ENCODERS:
        base = ENCODERS[name]
    elif name and (Path(name) / "config.json").is_file():
        base = _of_directory(Path(name))
    elif not name:
        raise ValueError("text.name or a whole text.encoder says which encoder of transformers it is")
    else:
        known = ", ".join(ENCODERS)
        raise ValueError(f"text.name {name!r} is neither a directory with a config.json nor one of {known}")
    merged = {**base, **given}
    if not all(
        any(key in merged for key in names) for names in (_WIDTH, _LAYERS, _HEADS, _DROPOUT, ("vocab_size",))
    ):
        merged = _with_defaults(merged)
    return {
        key: value
        for key, value in merged.items()
        if value is not None and key not in _FOREIGN and not key.startswith("_")
    }


def _with_defaults(encoder: dict[str, Any]) -> dict[str, Any]:
    """What a configuration leaves out, as transformers would fill it."""
    from transformers import AutoConfig

    values = {key: value for key, value in encoder.items() if key != "model_type"}
    try:
        return AutoConfig.for_model(encoder["model_type"], **values).to_dict()
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"text.encoder: {' '.join(str(error).split())[:200]}") from error


def _of_directory(path: Path) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(path), local_files_only=True).to_dict()
    except (ValueError, OSError, KeyError) as error:
        cause = " ".join(str(error).split())[:200]
        raise ValueError(f"text.name {path}: transformers reads no configuration there ({cause})") from error


def position_offset(encoder: dict[str, Any]) -> int:
    """Where positions start: RoBERTa and its kin count from behind their padding id."""
    roberta = (
        "roberta",
        "camembert",
        "xlm-roberta",
        "xlm-roberta-xl",
        "longformer",
        "xmod",
        "roberta-prelayernorm",
    )
    return encoder.get("pad_token_id", 0) + 1 if encoder["model_type"] in roberta else 0


def _refuse_long_context(encoder: dict[str, Any], context: Any) -> None:
    if "max_position_embeddings" not in encoder or not isinstance(context, int):
        return
    room = encoder["max_position_embeddings"] - position_offset(encoder)
    if context > room:
        raise ValueError(f"text.context is {context}, the encoder has {room} positions")
