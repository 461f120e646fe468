#!/usr/bin/env bash
# All that a run, or several, can be asked on the artist whom nobody trained on, in one table, as Markdown and as a page:
# recalls in Chinese and in eight other languages, the pointing test of a token-wise model and re-ranking of an R2D2, eight groups
# by their names in nine languages, and four protocols that learn the groups from the training artists' drawings.
#   bash examples/emoji/report.sh DIR RUN [RUN ...]
# Started again, it measures what is not in DIR/results.jsonl yet. K is the depth of re-ranking.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: report.sh DIR RUN [RUN ...]}
shift
: "${1:?a run of vlcli pretrain}"
splits=val-artist
langs=en,ar,es,fr,it,ja,ko,ru
. "$here/corpus.sh"

run() { printf '\n\033[1m$ %s\033[0m\n' "$*" >&2; "$@"; }

val=$out/val-artist.jsonl
# One of the training artists chooses the linear probe's penalty.
vlcli filter "$here/raw.parquet" --map $map --where "split = 'train' and artist != 'twemoji'" \
    -o "$out/train.jsonl" --force -q
vlcli filter "$here/raw.parquet" --map $map --where "split = 'train' and artist = 'twemoji'" \
    -o "$out/chooses.jsonl" --force -q
for of in "$@"; do
    kept=(--results "$out/results.jsonl")
    pointing=()
    if grep -q '^similarity = "tokenwise"' "$of/recipe.toml"; then
        pointing=(--mosaics "$here/mosaics.jsonl")
    fi
    run vlcli retrieve "$of" --data "$val" "${pointing[@]}" "${kept[@]}"
    run vlcli retrieve "$of" --data "$val" --text-column 'name_{lang}' --langs $langs "${kept[@]}"
    if grep -q '^\[model.ranking\]' "$of/recipe.toml"; then
        run vlcli retrieve "$of" --data "$val" --rerank "${K:-16}" "${kept[@]}"
        run vlcli retrieve "$of" --data "$val" --rerank "${K:-16}" --rerank-score posterior "${kept[@]}"
    fi
    run vlcli zeroshot "$of" --data "$val" --labels "$here/labels.group.zh.txt" --label-column group \
        --prompts wukong-80 "${kept[@]}"
    run vlcli zeroshot "$of" --data "$val" --labels "$here/labels.group.{lang}.txt" --label-column group \
        --langs zh,$langs "${kept[@]}"
    learnt=(--data "$val" --label-column group --train "$out/train.jsonl" "${kept[@]}")
    for protocol in knn ridge few-shot; do
        run vlcli zeroshot "$of" --protocol $protocol "${learnt[@]}"
    done
    run vlcli zeroshot "$of" --protocol linear-probe --val "$out/chooses.jsonl" "${learnt[@]}"
done
run vlcli report "$out/results.jsonl" -o "$out/report.html" --title "Emoji, the unseen artist" --force
vlcli report "$out/results.jsonl"
