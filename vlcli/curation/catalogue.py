"""The rules that `filter` knows, in their canonical order: adding a rule is one file and one line here.

The option of a rule is `--` and its name. A preset names rules the same way; the order of its lines is the
order in which they apply.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlcli.curation.bounds import parse_bound
from vlcli.curation.click_through import ctr_top_k, min_ctr
from vlcli.curation.flags import drop_flag, max_nsfw, parse_flags
from vlcli.curation.image_size import max_aspect, min_any_side, min_side
from vlcli.curation.language import lang, parse_language
from vlcli.curation.leakage import against, parse_downstream
from vlcli.curation.meaningless import drop_meaningless
from vlcli.curation.measures import Words
from vlcli.curation.query_cap import max_per_query
from vlcli.curation.rare_tokens import ngram_vocab_size
from vlcli.curation.rule import Step
from vlcli.curation.sharing import max_images_per_text, max_texts_per_image
from vlcli.curation.text_frequency import max_text_freq
from vlcli.curation.text_length import max_words, min_words
from vlcli.errors import UsageError

FINDERS = ("rules", "model")  # of names


@dataclass(frozen=True)
class Entry:
    """How a rule's value is read (from an option or a preset), and what rule the value makes."""

    name: str
    parse: Callable[[Any, str], Any]  # (value, how to name it in an error) -> value
    build: Callable[[Any, Words], Step | None]
    off_flag: str = ""  # the switch that turns it off, where that is not `--NAME off`


def _minimum(value: Any, name: str) -> Any:
    return parse_bound(value, "min", name)


def _maximum(value: Any, name: str) -> Any:
    return parse_bound(value, "max", name)


def _ratio(value: Any, name: str) -> Any:
    return parse_bound(value, "max", name, whole=False)


def _rate(value: Any, name: str) -> Any:
    return parse_bound(value, "min", name, whole=False)


def _size(value: Any, name: str) -> Any:
    bound = parse_bound(value, "max", name)
    if bound.operator != "<=" or not bound.value:
        raise UsageError(f"{name} {value!r} is not a size", remedy="write a whole number from 1 on, or off")
    return bound


def _flag(value: Any, name: str) -> Any:
    if value is not True:
        raise UsageError(f"{name} {value!r} is not true or off")
    return True


def _finder(value: Any, name: str) -> Any:
    """Who finds names: true is the default, the rules."""
    if value is not True and value not in FINDERS:
        raise UsageError(f"{name} {value!r} is not true, rules, model or off")
    return "rules" if value is True else value


def named_finder(mask: bool | None, finder: str | None) -> Any:
    """The value of `mask-names` from its switch and `--names-by`, which switches it on."""
    if finder is None:
        return mask
    if mask is False:
        raise UsageError("--names-by and --no-mask-names contradict each other")
    return one_of(finder, FINDERS, "--names-by")


def one_of(value: Any, names: tuple[str, ...], option: str) -> str:
    if value not in names:
        raise UsageError(f"{option} {value!r} is not one of {', '.join(names)}")
    return str(value)


def _word_list(value: Any, name: str) -> Any:
    path = Path(str(value))
    if not path.is_file():
        raise UsageError(f"{name}: {path}: no such file")
    return path


def _mask_names(finder: Any, _: Words) -> Step:
    from vlcli.curation.masking import mask_names

    return mask_names(finder)


def _sensitive_words(path: Path, _: Words) -> Step:
    from vlcli.curation.sensitive_text import sensitive_words

    return sensitive_words(path)


CATALOGUE: tuple[Entry, ...] = (
    Entry("max-per-query", _maximum, lambda bound, _: max_per_query(bound)),
    Entry("min-ctr", _rate, lambda bound, _: min_ctr(bound)),
    Entry("ctr-top-k", _maximum, lambda bound, _: ctr_top_k(bound)),
    Entry("drop-flag", parse_flags, lambda flags, _: drop_flag(flags)),
    Entry("max-nsfw", _ratio, lambda bound, _: max_nsfw(bound)),
    Entry("min-side", _minimum, lambda bound, _: min_side(bound)),
    Entry("min-any-side", _minimum, lambda bound, _: min_any_side(bound)),
    Entry("max-aspect", _ratio, lambda bound, _: max_aspect(bound)),
    Entry("max-texts-per-image", _maximum, lambda bound, _: max_texts_per_image(bound)),
    Entry("lang", parse_language, lambda language, _: lang(language)),
    Entry("min-words", _minimum, min_words),
    Entry("max-words", _maximum, max_words),
    Entry("drop-meaningless", _flag, lambda _, __: drop_meaningless(), "--no-drop-meaningless"),
    Entry("max-text-freq", _maximum, lambda bound, _: max_text_freq(bound)),
    Entry("max-images-per-text", _maximum, lambda bound, _: max_images_per_text(bound)),
    Entry("ngram-vocab-size", _size, lambda size, _: ngram_vocab_size(size)),
    Entry("mask-names", _finder, _mask_names, "--no-mask-names"),
    Entry("sensitive-words", _word_list, _sensitive_words),
    Entry("against", parse_downstream, lambda files, _: against("against", files)),
    Entry("against-images", parse_downstream, lambda files, _: against("against-images", files)),
    Entry("against-texts", parse_downstream, lambda files, _: against("against-texts", files)),
)
BY_NAME = {entry.name: entry for entry in CATALOGUE}
NAMES = tuple(BY_NAME)


def is_off(value: Any) -> bool:
    """`off`, or a switch set to false: the rule is named, and not applied."""
    return value is False or (isinstance(value, str) and value.strip().lower() == "off")
