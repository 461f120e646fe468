#!/usr/bin/env bash
# R2D2's Table 6 in miniature: the dual encoder alone (PRD2), R2D2, and R2D2 without enhanced training, without masked
# words, and without one or both distillations, each trained over three seeds; every model is judged by its cosines, and
# those that rank also with their first K re-ranked, by the match probability alone, and by what cosine and match say
# together. Mean ± standard deviation on each split:
#   bash examples/emoji/r2d2.sh [DIR]
# Started again, it goes on where it was stopped. SEEDS, SPLITS, EPOCHS, K and JOBS choose what; the test splits are for
# the end of a piece of work, not for choosing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-demo/r2d2}
splits=${SPLITS:-val-artist concept}
k=${K:-16}
. "$here/corpus.sh"

cosines=() reranked=()
for split in $splits; do
    cosines+=(--evaluate "$split: retrieve --data '$out/$split.jsonl'")
    reranked+=(--evaluate "$split.reranked: retrieve --data '$out/$split.jsonl' --rerank $k")
    reranked+=(--evaluate "$split.posterior: retrieve --data '$out/$split.jsonl' --rerank $k --rerank-score posterior")
done
sweep=(vlcli sweep --seeds "${SEEDS:-0,1,2}" -j "${JOBS:-1}" "${cosines[@]}")
training=(pretrain --data "$out/shards" --val "$out/val-artist.jsonl" --set "schedule.epochs=${EPOCHS:-12}"
    --set data.batch_size=64 --set optimizer.lr=1.5e-3 --set train.evaluate_every=170)
of=objective.r2d2

"${sweep[@]}" -o "$out/prd2" -- "${training[@]}" --recipe emoji-prd2
"${sweep[@]}" "${reranked[@]}" -o "$out/r2d2" \
    --variant "R2D2:" \
    --variant "w/o ET: $of.masked_language.enhanced=false" \
    --variant "w/o MLM: $of.masked_language.weight=0 model.ranking.mask_head=false" \
    --variant "w/o TwD: $of.target_distillation.enabled=false $of.feature_distillation.weight=0" \
    --variant "w/o TgD: $of.target_distillation.enabled=false" \
    --variant "w/o FgD: $of.feature_distillation.weight=0" \
    -- "${training[@]}" --recipe emoji-r2d2
