"""The change that hides person names: each becomes 〈人名〉 (Wukong §3.2), and what was replaced is reported."""

from __future__ import annotations

from vlcli.curation.rule import Change


def mask_names() -> Change:
    """Masks names in texts; after the frequency of texts was counted, before sensitive words are looked for."""
    from vlcli.curation.names import NAME_TOKEN, NameMasker

    masker = NameMasker()

    def apply(texts: list[str]) -> tuple[list[str], list[str]]:
        masked = masker.mask(texts)
        replaced: list[str] = []
        for old, new in zip(texts, masked, strict=True):
            if old != new:
                replaced += cut_out(old, new, NAME_TOKEN)
        return masked, replaced

    return Change("mask-names", "a person's name", apply)


def cut_out(old: str, new: str, token: str) -> list[str]:
    """The stretches of `old` that stand as `token` in `new`, left to right."""
    head, *pieces = new.split(token)
    at, found = len(head), []
    for i, piece in enumerate(pieces):
        last = i == len(pieces) - 1
        # A name has a character at least; the last stretch ends where the rest of the text begins.
        end = len(old) - len(piece) if last else old.index(piece, at + 1) if piece else at + 1
        found.append(old[at:end])
        at = end + len(piece)
    return found
