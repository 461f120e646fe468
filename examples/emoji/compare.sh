#!/usr/bin/env bash
# Wukong's Table 5 in miniature: global, token-wise and reduced-token similarity (as released, as printed), each trained over
# three seeds; mean ± standard deviation on each split, and on the mosaics of val-artist:
#   bash examples/emoji/compare.sh [DIR]
# Started again, it goes on where it was stopped. RECIPES, SEEDS, SPLITS and JOBS choose what; the test splits are for the
# end of a piece of work, not for choosing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-demo/compare}
splits=${SPLITS:-val-artist concept}
. "$here/corpus.sh"

evaluations=()
for split in $splits; do
    mosaics=
    if [ "$split" = val-artist ]; then
        mosaics=" --mosaics '$here/mosaics.jsonl'"
    fi
    evaluations+=(--evaluate "$split: retrieve --data '$out/$split.jsonl'$mosaics")
done
vlcli sweep -o "$out/runs" --seeds "${SEEDS:-0,1,2}" -j "${JOBS:-1}" "${evaluations[@]}" \
    --grid "recipe=${RECIPES:-emoji-lit-clip,emoji-lit-filip,emoji-lit-wukong,emoji-lit-wukong-paper}" \
    -- pretrain --data "$out/shards" --val "$out/val-artist.jsonl"
