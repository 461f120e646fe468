"""Language by the scripts of the letters; where several languages share a script, by an identifier among a declared
set.

Chinese, Russian and so on are told by their letters alone: no model, so no training data decides what counts as
Chinese. Who shares the Latin script is told apart by lingua (extra `lang`), asked about the declared languages only: it
then has fewer ways to be wrong. On names of two words it is far from sure (of emoji names in nine languages it keeps
three quarters of the English ones, and 1 to 3 in a hundred of the others); of a sentence it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from vlcli.curation.rule import Rule
from vlcli.errors import UsageError

_LETTER = r"\p{L}"
_KANA_OR_HANGUL = r"[\p{Hiragana}\p{Katakana}\p{Hangul}]"
_SCRIPTS = {
    "latin": r"[\p{Latin}&&\p{L}]",
    "zh": r"[\p{Han}&&\p{L}]",
    "ja": r"[[\p{Han}\p{Hiragana}\p{Katakana}]&&\p{L}]",
    "ko": r"[\p{Hangul}&&\p{L}]",
    "ru": r"[\p{Cyrillic}&&\p{L}]",
    "ar": r"[\p{Arabic}&&\p{L}]",
}
_NAMES = {
    "latin": "Latin",
    "zh": "Chinese",
    "ja": "Japanese",
    "ko": "Korean",
    "ru": "Russian",
    "ar": "Arabic",
}
_MUST = {"ja": r"[\p{Hiragana}\p{Katakana}]"}  # Han alone may be Chinese as well
# Languages of the Latin script, and what lingua calls them.
_LATIN = {
    "en": "ENGLISH",
    "de": "GERMAN",
    "es": "SPANISH",
    "fr": "FRENCH",
    "it": "ITALIAN",
    "nl": "DUTCH",
    "pl": "POLISH",
    "pt": "PORTUGUESE",
    "tr": "TURKISH",
    "vi": "VIETNAMESE",
}
_AMONG = ("de", "es", "fr", "it", "pt")  # what a Latin text may be, if nothing else is declared
LANGUAGES = (*_SCRIPTS, *_LATIN, "any")


@dataclass(frozen=True)
class Language:
    """A language, and for those of the Latin script which others it is told from."""

    name: str
    among: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}:{','.join(self.among)}" if self.among else self.name


def parse_language(value: object, option: str) -> Language:
    """`zh`, `en`, … or `en:de,fr`, which tells English from German and French only."""
    name, colon, rest = str(value).partition(":")
    if name not in LANGUAGES:
        raise UsageError(f"{option} {value!r} is not one of {', '.join(LANGUAGES)}")
    if name not in _LATIN:
        if colon:
            raise UsageError(f"{option} {value!r}: {name} is told by its script alone")
        return Language(name)
    among = tuple(rest.split(",")) if colon else tuple(other for other in _AMONG if other != name)
    for other in among:
        if other not in _LATIN or other == name:
            raise UsageError(
                f"{option} {value!r}: {other!r} is no other language of the Latin script",
                remedy=f"choose from {', '.join(_LATIN)}",
            )
    return Language(name, tuple(sorted(set(among))))


def lang(language: Language) -> Rule | None:
    """At least half of a text's letters are of the script, one at least; `any`: no rule.

    `zh` and `ko`: no kana, and no hangul or that alone; `ja`: some kana; `en`, … : the identifier says so too.
    """
    name = language.name
    if name == "any":
        return None
    text = pl.col("text").str
    letters = text.count_matches(_SCRIPTS["latin" if name in _LATIN else name])
    keep = (letters > 0) & (2 * letters >= text.count_matches(_LETTER))
    if name == "zh":
        keep &= ~text.contains(_KANA_OR_HANGUL)
    if name in _MUST:
        keep &= text.contains(_MUST[name])
    if name not in _LATIN:
        return Rule("lang", "text", ("text",), keep, f"not {_NAMES[name]} by its scripts", judges="text")
    says = _identifier(language)

    def judge(texts: pl.Series) -> pl.Series:
        frame = texts.to_frame("text").with_columns(keep=keep)
        asked = frame["keep"].arg_true()
        return frame["keep"].scatter(asked, says(frame["text"].gather(asked).to_list()))

    expression = pl.col("text").map_batches(judge, return_dtype=pl.Boolean())
    reason = f"not {_LATIN[name].capitalize()}, told from {', '.join(language.among)}"
    return Rule("lang", "text", ("text",), expression, reason, judges="text", costly=True)


def _identifier(language: Language) -> Callable[[list[str]], list[bool]]:
    """Whether each text is more likely in `language` than in any of those it is told from."""
    try:
        import lingua
    except ImportError:
        raise UsageError(
            f"--lang {language.name}: languages of one script are told apart by lingua, which is not installed",
            remedy="pip install 'vlcli[lang]', or --lang latin, or off",
        ) from None
    named = {code: getattr(lingua.Language, _LATIN[code]) for code in (language.name, *language.among)}
    detector = lingua.LanguageDetectorBuilder.from_languages(*named.values()).build()
    wanted = named[language.name]
    return lambda texts: [detector.detect_language_of(text) == wanted for text in texts]
