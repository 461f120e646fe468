"""Fill a text tower: an encoder as transformers saves it, or the tower of a dual encoder, of ours or a foreign one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vlcli.errors import InputError
from vlcli.models.adapters import openai_clip
from vlcli.models.adapters.format import Asked, Checkpoint
from vlcli.models.adapters.registry import recognise
from vlcli.models.adapters.source import read_source
from vlcli.models.encoder_tower import TransformersTower
from vlcli.models.initial import checkpoint_of, fill, read_tensors

# Heads of pre-training, and buffers that older versions stored.
_BESIDE = ("pooler.", "cls.", "lm_head.", "classifier.", "position_ids", "embeddings.position_ids")


def load_text_tower(tower: nn.Module, path: Path, name: str) -> None:
    """Fill `tower` from `path`. Heads that an encoder was pre-trained with are left out; any other mismatch is an
    InputError that calls the tower `name`."""
    ours = checkpoint_of(path) if path.is_dir() else None
    state = read_tensors(ours or path)
    both = state if ours is not None else _of_a_dual_encoder(path)
    if both is not None:
        inside = {key.removeprefix("text."): x for key, x in both.items() if key.startswith("text.")}
        fill(tower, inside, name, path)
    elif isinstance(tower, TransformersTower):
        fill(tower.body, _bare(state, tower.body, path), name, path)
    else:
        fill(tower, state, name, path)


def _of_a_dual_encoder(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a dual encoder in a foreign format under our names; None where `path` is none."""
    source = read_source(path)
    # OpenAI's CLIP and open_clip differ in the activation alone, and that is the recipe's to say
    if openai_clip.is_layout(source):
        found = openai_clip.FORMAT
    else:
        try:
            found = recognise(source)
        except InputError:
            return None
    checkpoint = found.read(source, Asked(towers_only=True))
    return checkpoint.state if isinstance(checkpoint, Checkpoint) else None


def _bare(state: Mapping[str, Tensor], body: Any, path: Path) -> dict[str, Tensor]:
    """An encoder's own tensors under the names of `body`: without the name of the model around it, which is "bert." in
    a BERT for masked words, and with TensorFlow's names of a LayerNorm's two vectors changed to torch's."""
    state = {_torch_name(name): tensor for name, tensor in state.items()}
    expected = body.state_dict()
    first = next(iter(expected))
    around = [name.removesuffix(first) for name in state if name == first or name.endswith(f".{first}")]
    if len(around) != 1:
        raise InputError(f"no encoder: {len(around)} tensors are called {first}", file=str(path))
    prefix = around[0]
    result = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
    # without a prefix, heads stand beside the encoder's parts
    return {name: x for name, x in result.items() if name in expected or not name.startswith(_BESIDE)}


def _torch_name(name: str) -> str:
    for theirs, ours in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        name = name.removesuffix(theirs) + ours if name.endswith(theirs) else name
    return name
