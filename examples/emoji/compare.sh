#!/usr/bin/env bash
# Wukong's Table 5 in miniature: global, token-wise and reduced-token similarity (as released, as printed), each trained over
# three seeds; mean ± standard deviation on each split, and on the mosaics of val-artist:
#   bash examples/emoji/compare.sh [DIR]
# Started again, it goes on where it was stopped. RECIPES, SEEDS and SPLITS choose what; the test splits are for the end
# of a piece of work, not for choosing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-demo/compare}
recipes=${RECIPES:-emoji-lit-clip emoji-lit-filip emoji-lit-wukong emoji-lit-wukong-paper}
seeds=${SEEDS:-0 1 2}
splits=${SPLITS:-val-artist concept}
. "$here/corpus.sh"

for recipe in $recipes; do
    for seed in $seeds; do
        run=$out/$recipe-$seed
        vlcli pretrain --recipe "$recipe" --seed "$seed" --data "$out/shards" \
            --val "$out/val-artist.jsonl" -o "$run" --resume
        for split in $splits; do
            mosaics=()
            if [ "$split" = val-artist ]; then
                mosaics=(--mosaics "$here/mosaics.jsonl")
            fi
            vlcli retrieve "$run" --data "$out/$split.jsonl" ${mosaics[@]+"${mosaics[@]}"} --json >"$run/$split.part"
            mv "$run/$split.part" "$run/$split.json"
        done
    done
done
python "$here/compare.py" "$out"
