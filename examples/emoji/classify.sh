#!/usr/bin/env bash
# ALIGN's classification in miniature: the image tower of a run learns the eight groups of the drawings. A head on frozen
# features (linear-probe), a head and then all layers (classify), and VTAB's search on 800 + 200 drawings; the last two
# over three seeds. A training artist, or the 200, choose; the artist whom nobody trained on is looked at once, at the end.
#   bash examples/emoji/classify.sh DIR RUN
# Started again, it goes on where it was stopped. EPOCHS and TRIALS shorten or lengthen it, RUNS is how many seeds.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: classify.sh DIR RUN}
run=${2:?a run of vlcli pretrain}
map=text=name
export VLCLI_CACHE=${VLCLI_CACHE:-$out/cache}

mkdir -p "$out"
rows() { vlcli filter "$here/raw.parquet" --map $map --where "$1" -o "$out/$2.jsonl" --force -q "${@:3}"; }
rows "split = 'val-artist'" test
rows "split = 'train' and artist != 'twemoji'" train
rows "split = 'train' and artist = 'twemoji'" chooses
rows "split = 'train'" thousand --sample 1000 --split train=4,val=1 --stratify group --seed 0
for part in train val; do
    vlcli filter "$out/thousand.jsonl" --where "split = '$part'" -o "$out/thousand.$part.jsonl" --force -q
done

step=(vlcli finetune "$run" --label-column group --test "$out/test.jsonl")
large=(--data "$out/train.jsonl" --val "$out/chooses.jsonl")
small=(--data "$out/thousand.train.jsonl" --val "$out/thousand.val.jsonl")
[ -e "$out/probe/config.json" ] || "${step[@]}" --task linear-probe "${large[@]}" -o "$out/probe"
"${step[@]}" --task classify --recipe emoji-classify "${large[@]}" --runs "${RUNS:-3}" --resume \
    --set "schedule.epochs=${EPOCHS:-2}" -o "$out/classify"
"${step[@]}" --task classify --recipe emoji-vtab "${small[@]}" --runs "${RUNS:-3}" --resume \
    --set "trials.count=${TRIALS:-8}" -o "$out/vtab"
