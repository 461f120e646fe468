#!/usr/bin/env bash
# R2D2's captioner in miniature: an R2D2 of the emoji corpus learns to write the names of drawings, and is scored on those of
# an artist whom it never saw, beside three controls that need no captioner: the commonest name for every drawing, the name
# of the training drawing that the R2D2 finds most alike, and the captioner's own names, each under another drawing.
#   bash examples/emoji/captions.sh [DIR]
# R2D2 names a run of emoji-r2d2 to start from; without it one is trained.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-demo/captions}
splits="val-artist"
. "$here/corpus.sh"
val=$out/val-artist.jsonl

r2d2=${R2D2:-$out/r2d2}
if [ -z "${R2D2:-}" ]; then
    vlcli pretrain --recipe emoji-r2d2 --set schedule.epochs=12 --data "$out/shards" --val "$val" -o "$r2d2" --force -q
fi
vlcli finetune "$r2d2" --task caption --recipe emoji-caption --data "$out/shards" --val "$val" \
    -o "$out/captioner" --force
vlcli generate "$out/captioner" --caption "$val" -o "$out/greedy.jsonl" --force
vlcli generate "$out/captioner" --caption "$val" --decode beam -o "$out/beam.jsonl" --force

vlcli embed "$r2d2" "$out/shards" --what image --dtype float32 -o "$out/embeddings/train" --force -q
vlcli embed "$r2d2" "$val" --what image --dtype float32 -o "$out/embeddings/val" --force -q
python "$here/caption_controls.py" "$out"

for who in beam greedy nearest constant shuffled; do
    echo "== $who"
    vlcli score "$out/$who.jsonl"
done
