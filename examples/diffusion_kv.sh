#!/usr/bin/env bash
# AltCLIP-guided diffusion in miniature (AltCLIP §5.4): a text encoder of nine languages, distilled by examples/altclip.sh,
# takes the place of a diffusion model's own; the keys and values of its cross-attention learn to read it, on emoji in nine
# languages, and nothing else changes. The diffusion model here is tiny and random: pictures are patterns.
#   pip install 'vlcli[demo,altclip,generate]'
#   bash examples/altclip.sh demo/altclip
#   bash examples/diffusion_kv.sh [DIR] [ALTCLIP]
# Everything goes to the directory given (default: demo/diffusion); ALTCLIP is altclip.sh's (default: demo/altclip).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-demo/diffusion}
alt=${2:-demo/altclip}

run() { printf '\n\033[1m$ %s\033[0m\n' "$*" >&2; "$@"; }

mkdir -p "$out"
[ -e "$out/tiny-sd" ] || run python "$here/emoji/tiny_diffusion.py" "$out/tiny-sd" 512

# 1. Keys and values alone learn.
run vlcli finetune "$out/tiny-sd" --task diffusion-kv --recipe emoji-diffusion --encoder "$alt/dual" \
    --data "$alt/train.nine.jsonl" --val "$alt/val.nine.jsonl" -o "$out/kv" --resume
run vlcli check "$out/kv"

# 2. One prompt in nine languages, from one noise.
run vlcli generate "$out/tiny-sd" --kv "$out/kv" --encoder "$alt/dual" --seed 0 --steps 25 -o "$out/pictures" --force \
    --text "en=red apple" --text "zh=红苹果" --text "es=manzana roja" --text "fr=pomme rouge" \
    --text "ru=красное яблоко" --text "ar=تفاحة حمراء" --text "ja=赤いりんご" --text "ko=빨간 사과" --text "it=mela rossa"
echo "the grid: $out/pictures/grid.png" >&2
