#!/usr/bin/env bash
# Text-to-image in miniature, as R2D2 (App. C) does it in three parts: a dual encoder, a prior that makes image embeddings
# of texts, and a decoder that draws them; minutes on two CPU cores:
#   bash examples/emoji/t2i.sh [DIR]
# The prior is measured without pictures: how often an embedding that it draws for a text finds its picture, beside the
# text's own embedding and a linear regression. The decoder learns 32 pixels of one group, the faces, and says its loss
# with the pictures' embeddings, without any, and with those of other pictures.
# What it draws are yellow faces with eyes and a mouth under coloured specks; what is no face (a ghost, a skull) stays specks.
# Started again, it goes on where it was stopped. SETTINGS (for --set) shortens or lengthens the trainings of both.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-demo/t2i}
splits=val-artist
. "$here/corpus.sh"

settings=()
for one in ${SETTINGS:-}; do settings+=(--set "$one"); done
faces="subgroup LIKE 'face-%'"
for split in train val-artist; do
    vlcli filter "$here/raw.parquet" --map $map --where "split = '$split' AND $faces" -o "$out/faces.$split.jsonl" --force -q
done

data=(--data "$out/shards" --val "$out/val-artist.jsonl")
[ -e "$out/prd2/last" ] || vlcli pretrain --recipe emoji-prd2 "${data[@]}" -o "$out/prd2" --force
step=(vlcli finetune --task t2i --resume)
"${step[@]}" "$out/prd2" --stage clip --recipe emoji-t2i-clip "${data[@]}" -o "$out/clip"
"${step[@]}" "$out/clip" --stage prior --recipe emoji-t2i-prior "${data[@]}" -o "$out/prior" "${settings[@]}"
python "$here/prior.py" "$out/clip" "$out/prior" --train "$out/shards" --gallery "$out/val-artist.jsonl"

data=(--data "$out/faces.train.jsonl" --val "$out/faces.val-artist.jsonl")
"${step[@]}" "$out/clip" --stage decoder --recipe emoji-t2i-decoder "${data[@]}" -o "$out/decoder" "${settings[@]}"

draw=(vlcli generate "$out/decoder" --prior "$out/prior" --clip "$out/clip" "$out/faces.val-artist.jsonl" --seed 0 -q)
"${draw[@]}" -o "$out/pictures" --force
"${draw[@]}" -o "$out/again" --force
diff -r "$out/pictures" "$out/again" && echo "the same seed draws the same bytes"
vlcli retrieve "$out/clip" --data "$out/pictures/pairs.jsonl"
