#!/usr/bin/env bash
# The papers' ablations in miniature, each an axis of its own about emoji-lit-filip: the similarity (Wukong's Table 5), the
# tokens that are kept for it (FILIP's Table 5), the width of the joint space and the share of negatives (ALIGN's Table
# 8), and how many pairs there are (its Tables 9 and 10). Mean ± standard deviation over three seeds, a table and a figure for each:
#   bash examples/emoji/sweep.sh [DIR]
# Started again, it goes on where it was stopped. AXES, SEEDS, SPLITS, EPOCHS and JOBS choose what.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-demo/sweep}
splits=${SPLITS:-val-artist concept}
. "$here/corpus.sh"

evaluations=()
for split in $splits; do
    evaluations+=(--evaluate "$split: retrieve --data '$out/$split.jsonl'")
done

# axis NAME GRID [OPTION …]: the runs of one axis, in a directory of their own
axis() {
    vlcli sweep -o "$out/$1" --seeds "${SEEDS:-0,1,2}" -j "${JOBS:-1}" "${evaluations[@]}" --grid "$2" \
        -- pretrain --data "$out/shards" --val "$out/val-artist.jsonl" --set "schedule.epochs=${EPOCHS:-8}" "${@:3}"
}

filip=(--recipe emoji-lit-filip)
for name in ${AXES:-similarity tokens width negatives pairs}; do
    case $name in
        similarity) axis similarity recipe=emoji-lit-clip,emoji-lit-filip,emoji-lit-wukong ;;
        tokens) axis tokens objective.tokens.keep=0.25,0.5,1.0 "${filip[@]}" ;;
        width) axis width model.dim=32,128,512 "${filip[@]}" ;;
        negatives) axis negatives objective.negatives=0.1,0.25,1.0 "${filip[@]}" ;;
        # as many steps whatever there is: fewer pairs come again more often
        pairs) axis pairs head=1000,2500,5000 "${filip[@]}" --set data.epoch_pairs=5376 ;;
        *)
            echo "sweep.sh: $name: not an axis" >&2
            exit 2
            ;;
    esac
done
