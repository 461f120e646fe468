"""The change that hides person names: each becomes 〈人名〉 (Wukong §3.2) and is counted."""

from __future__ import annotations

from vlcli.curation.rule import Change


def mask_names() -> Change:
    """Masks names: after the frequency of texts was judged, before sensitive words are looked for."""
    from vlcli.curation.names import NameMasker

    masker = NameMasker()

    def apply(texts: list[str]) -> tuple[list[str], list[str]]:
        masked, names = [], []
        for text, spans in zip(texts, masker.find(texts), strict=True):
            parts, done = [], 0
            for start, end in spans:
                parts.append(text[done:start])
                names.append(text[start:end])
                done = end
            masked.append(masker.token.join([*parts, text[done:]]))
        return masked, names

    return Change("mask-names", "a person's name", apply)
