"""The options that `filter` alone has, in their panels: rules, selections, translation, parts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from vlcli.commands import _complete as complete
from vlcli.commands._options import PARTS

_RULES = "Rules (each overrides the preset; 'off' switches one off)"


_SELECTIONS = "Selections (of the rows that all rules let pass, in this order)"


def _selection(flag: str, metavar: str, help: str, **others: Any) -> Any:
    return Option(flag, metavar=metavar, help=help, rich_help_panel=_SELECTIONS, show_default=False, **others)


_TRANSLATION = "Translation of what is kept (the manual page says how)"


def _translation(flag: str, metavar: str, help: str, **more: Any) -> Any:
    return Option(flag, metavar=metavar, help=help, rich_help_panel=_TRANSLATION, show_default=False, **more)


def _rule(flag: str, metavar: str, help: str) -> Any:
    return Option(flag, metavar=metavar, help=help, rich_help_panel=_RULES, show_default=False)


def _switch(flags: str, help: str) -> Any:
    return Option(flags, help=help, rich_help_panel=_RULES, show_default=False)


MaxPerQuery = Annotated[
    str | None, _rule("--max-per-query", "N", "Rows of one query, the first in input order (<= N).")
]
MinCtr = Annotated[
    str | None,
    _rule("--min-ctr", "P", "Click-through rate: the column ctr, or clicks over impressions; 0.05, '>0'."),
]
CtrTopK = Annotated[
    str | None, _rule("--ctr-top-k", "K", "Rows of one query, those of the highest rate (two passes).")
]
DropFlag = Annotated[
    str | None, _rule("--drop-flag", "COLUMN,...", "Drop rows in which one of these columns is true.")
]
MaxNsfw = Annotated[str | None, _rule("--max-nsfw", "P", "Score in the column nsfw, at most.")]
MinSide = Annotated[str | None, _rule("--min-side", "PX", "Shorter side of the image; '>200' is strict.")]
MinAnySide = Annotated[
    str | None, _rule("--min-any-side", "PX", "Longer side of the image: drop when both are below.")
]
MaxAspect = Annotated[str | None, _rule("--max-aspect", "R", "Longer side over shorter side.")]
MaxTextsPerImage = Annotated[
    str | None,
    _rule("--max-texts-per-image", "N", "Different texts of one image; drop it beyond (two passes)."),
]
Lang = Annotated[
    str | None,
    _rule(
        "--lang",
        "zh|en|...|any",
        "Language, by the scripts of the letters; en:de,fr tells English from those (extra lang).",
    ),
]
MinWords = Annotated[str | None, _rule("--min-words", "N", "Words of a text, at least.")]
MaxWords = Annotated[str | None, _rule("--max-words", "N", "Words of a text, at most; '<32' is strict.")]
DropMeaningless = Annotated[
    bool | None,
    _switch("--drop-meaningless/--no-drop-meaningless", "Drop file names and bare digits or punctuation."),
]
MaxTextFreq = Annotated[
    str | None, _rule("--max-text-freq", "N", "Rows of the whole input with the same text (two passes).")
]
MaxImagesPerText = Annotated[
    str | None,
    _rule("--max-images-per-text", "N", "Different images of one text; drop it beyond (two passes)."),
]
NgramVocabSize = Annotated[
    str | None,
    _rule(
        "--ngram-vocab-size",
        "N",
        "Drop texts with a word or pair of words outside the N most frequent (two passes).",
    ),
]
MaskNames = Annotated[
    bool | None, _switch("--mask-names/--no-mask-names", "Write 〈人名〉 for the names of persons.")
]
SensitiveWords = Annotated[
    str | None,
    _rule("--sensitive-words", "FILE", "Drop texts that hold a word of this list, one word a line."),
]
Against = Annotated[
    str | None,
    _rule("--against", "FILE,...", "Drop texts that these evaluation files have for the same image."),
]
AgainstImages = Annotated[
    str | None, _rule("--against-images", "FILE,...", "Drop rows whose image these files have.")
]
AgainstTexts = Annotated[
    str | None, _rule("--against-texts", "FILE,...", "Drop texts that these files have.")
]
HoldOut = Annotated[
    int | None,
    _selection(
        "--hold-out",
        "N",
        "Hold N random rows out, and drop what shares an image or a text with them (two passes).",
        min=1,
    ),
]
HoldOutTo = Annotated[
    str | None,
    _selection("--hold-out-to", "FILE", "Where the rows held out go; its name says the format."),
]
FirstImages = Annotated[
    int | None,
    _selection("--first-images", "N", "The first N images in input order, with all their captions.", min=1),
]
First = Annotated[
    str | None,
    _selection("--first", "N|P%", "The first rows in input order; P% of all that pass (two passes)."),
]
Mix = Annotated[
    str | None,
    _selection(
        "--mix",
        "COLUMN[:VALUE=WEIGHT,...]",
        "Random rows in these proportions, as many as can be, or --sample N; without weights: equal (two passes).",
    ),
]
Sample = Annotated[
    str | None,
    _selection("--sample", "N|P%", "Random rows: exactly N (two passes), or each with a chance of P%."),
]
PerKey = Annotated[
    str | None,
    _selection(
        "--per-key",
        "COLUMN",
        "--sample and --mix take so much of each value of this column (two passes).",
    ),
]
Split = Annotated[
    str | None,
    _selection(
        "--split",
        "8:1:1|NAME=WEIGHT,...",
        "Write train, val or test into the column split, in this ratio; an image has one (two passes).",
    ),
]
Stratify = Annotated[
    str | None,
    _selection("--stratify", "COLUMN", "--split keeps the ratio for each value of this column."),
]
AugmentText = Annotated[
    str | None,
    _translation(
        "--augment-text",
        "LANG,...",
        "Add each text's translation to these languages and back to text_candidates: FILIP's are de,ru.",
    ),
]
Translate = Annotated[
    str | None,
    _translation("--translate", "LANG,...", "Write each text in these languages into a column."),
]
TranslateTo = Annotated[
    str, _translation("--translate-to", "COLUMN", "Its name; default: text_{target}, as text_zh.")
]
SourceLang = Annotated[
    str | None,
    _translation(
        "--source-lang",
        "LANG",
        "What the texts are in; default: what --lang or the preset keeps, else each row's column lang.",
    ),
]
Translator = Annotated[
    list[str] | None,
    _translation(
        "--translator",
        "command:COMMAND|DIR|LANG-LANG=DIR,...",
        "A command from lines to lines, or MarianMT and mBART directories; repeatable.",
    ),
]
TranslationCache = Annotated[
    Path | None,
    _translation("--translation-cache", "FILE", "Keep translations there, and use those that it has."),
]
Beams = Annotated[
    int | None,
    _translation("--beams", "N", "Of a model's search, 1 is greedy; default: as the model says.", min=1),
]
CountOnly = Annotated[
    bool,
    Option(
        "--count-only",
        help="Only count what rules of two passes want to know, into the directory -o.",
        rich_help_panel=PARTS,
    ),
]
Counts = Annotated[
    Path | None,
    Option(
        "--counts",
        metavar="DIR",
        help="What --count-only has counted, of every part.",
        rich_help_panel=PARTS,
    ),
]
Engine = Annotated[
    Literal["local", "ray"],
    Option(
        "--engine",
        help="Who shares the work: -j processes, or the cluster of RAY_ADDRESS, into the directory -o.",
        rich_help_panel=PARTS,
    ),
]
NamesBy = Annotated[
    str | None,
    Option(
        "--names-by",
        metavar="rules|model",
        help="Who finds the names that are masked: rules (fast), or rules and a network (extra names).",
        rich_help_panel=_RULES,
        show_default=False,
        autocompletion=complete.words("rules", "model"),
    ),
]
