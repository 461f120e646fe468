#!/usr/bin/env bash
# R2D2's Table 6 in miniature: the dual encoder alone (PRD2), R2D2, and R2D2 without enhanced training, without masked
# words, and without one or both distillations, each trained over three seeds; every model is judged by its cosines, and
# those that rank also with their first K re-ranked. Mean ± standard deviation on each split:
#   bash examples/emoji/r2d2.sh [DIR]
# Started again, it goes on where it was stopped. VARIANTS, SEEDS, SPLITS and K choose what; the test splits are for the
# end of a piece of work, not for choosing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-demo/r2d2}
variants=${VARIANTS:-prd2 r2d2 r2d2-wo-et r2d2-wo-mlm r2d2-wo-tgd r2d2-wo-fgd r2d2-wo-twd}
seeds=${SEEDS:-0 1 2}
splits=${SPLITS:-val-artist concept}
k=${K:-16}
. "$here/corpus.sh"

# settings VARIANT: its recipe and what differs, as options, a word a line
settings() {
    case $1 in
        prd2) printf '%s\n' --recipe emoji-prd2 ;;
        *) printf '%s\n' --recipe emoji-r2d2 ;;
    esac
    case $1 in
        prd2 | r2d2) ;;
        r2d2-wo-et) printf '%s\n' --set objective.r2d2.masked_language.enhanced=false ;;
        r2d2-wo-mlm) printf '%s\n' --set objective.r2d2.masked_language.weight=0 --set model.ranking.mask_head=false ;;
        r2d2-wo-tgd) printf '%s\n' --set objective.r2d2.target_distillation.enabled=false ;;
        r2d2-wo-fgd) printf '%s\n' --set objective.r2d2.feature_distillation.weight=0 ;;
        r2d2-wo-twd)
            printf '%s\n' --set objective.r2d2.target_distillation.enabled=false
            printf '%s\n' --set objective.r2d2.feature_distillation.weight=0
            ;;
        *)
            echo "r2d2.sh: $1: not a variant" >&2
            return 2
            ;;
    esac
}

# judge RUN SPLIT NAME [OPTION …]: an evaluation, written whole or not at all
judge() {
    vlcli retrieve "$1" --data "$out/$2.jsonl" --json "${@:4}" >"$1/$3.part"
    mv "$1/$3.part" "$1/$3.json"
}

for seed in $seeds; do
    for variant in $variants; do
        run=$out/$variant-$seed
        options=$(settings "$variant")
        mapfile -t options <<<"$options"
        vlcli pretrain "${options[@]}" --seed "$seed" --data "$out/shards" --val "$out/val-artist.jsonl" -o "$run" --resume
        for split in $splits; do
            judge "$run" "$split" "$split"
            if [ "$variant" != prd2 ]; then
                judge "$run" "$split" "$split.reranked" --rerank "$k"
            fi
        done
    done
done
python "$here/compare.py" "$out"
