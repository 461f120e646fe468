"""The change that hides person names: each becomes 〈人名〉 (Wukong §3.2) and is counted."""

from __future__ import annotations

from typing import Literal

from vlcli.curation.name_spans import Masker, replace
from vlcli.curation.rule import Change

Finder = Literal["rules", "model"]


def mask_names(finder: Finder = "rules") -> Change:
    """Masks names: after the frequency of texts was judged, before sensitive words are looked for.

    Raises UsageError when the model is asked for and its package is not installed.
    """
    masker = _masker(finder)

    def apply(texts: list[str]) -> tuple[list[str], list[str]]:
        masked, names = [], []
        for text, spans in zip(texts, masker.find(texts), strict=True):
            masked.append(replace(text, spans))
            names += [text[start:end] for start, end in spans]
        return masked, names

    return Change("mask-names", "a person's name", apply)


def _masker(finder: Finder) -> Masker:
    if finder == "model":
        from vlcli.curation.name_model import ModelMasker

        return ModelMasker()
    from vlcli.curation.names import NameMasker

    return NameMasker()
