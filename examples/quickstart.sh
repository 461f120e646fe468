#!/usr/bin/env bash
# From raw pairs to a trained Chinese dual encoder, its scores and its figures, on the emoji corpus that the
# repository carries. Everything goes to the directory given (default: demo); a second run starts anew but keeps
# the locked tower's features.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-demo}
recipe=${2:-emoji-lit-filip}
raw=$here/emoji/raw.parquet
map=text=name,text_candidates=keywords
export VLCLI_CACHE=$out/cache

run() { printf '\n\033[1m$ %s\033[0m\n' "$*" >&2; "$@"; }

mkdir -p "$out/results" "$out/figures"

# 1. Rows: Wukong's rules on the five artists of the training split, packed into WebDataset shards.
printf '\n\033[1m$ vlcli filter … --preset wukong | vlcli shard -o %s/shards\033[0m\n' "$out" >&2
vlcli filter "$raw" --map $map --where "split = 'train'" --preset wukong --min-side '>=64' \
    --report "$out/report.json" --force | vlcli shard -o "$out/shards" --force
# … and the artist that nobody trains on.
run vlcli filter "$raw" --map $map --where "split = 'val-artist'" -o "$out/val.jsonl" --force
run vlcli check "$out/shards"

# 2. Train: the image tower is locked, so each picture is encoded once.
run vlcli pretrain --recipe "$recipe" --data "$out/shards" --val "$out/val.jsonl" -o "$out/run" --force

# 3. Scores on the unseen artist: 519 pictures against 519 names, and eight groups with Wukong's 80 prompts.
run vlcli retrieve "$out/run" --data "$out/val.jsonl" --json >"$out/results/retrieve.json"
run vlcli zeroshot "$out/run" --data "$out/val.jsonl" --labels "$here/emoji/labels.group.zh.txt" \
    --label-column group --prompts wukong-80 --json >"$out/results/zeroshot.json"

# 4. Figures: which token each patch chooses, and where the word finds its picture (token-wise models only).
if grep -q '^similarity = "tokenwise"' "$out/run/recipe.toml"; then
    run vlcli retrieve "$out/run" --data "$out/val.jsonl" --mosaics "$here/emoji/mosaics.jsonl" --json \
        >"$out/results/mosaics.json"
    # A fox by one of the training artists; then four pictures by the unseen artist, of which one is named.
    fox=$(python -c "import polars as pl
print(pl.read_parquet('$raw', columns=['id'])['id'].to_list().index('noto/1f98a'))")
    run vlcli visualize "$out/run" --image "$raw#$fox" --text 狐狸 -o "$out/figures/fox.png" --force
    run vlcli visualize "$out/run" --data "$out/val.jsonl" --mosaic --id fxemoji/1f427 --id fxemoji/1f377 \
        --id fxemoji/1f3e4 --id fxemoji/1f33b --text 企鹅 --text 葡萄酒 -o "$out/figures/mosaic.png" --force
fi

# 5. The table.
run python "$here/emoji/table.py" "$out"
