#!/usr/bin/env bash
# A corpus filtered and packed into shards: the arrays of filter-array.sh, and one more behind them.
#
#   PARTS=64 bash examples/slurm/shard-array.sh raw/ kept/ shards/ --preset wukong -- --resize 384 --encode jpg
#
# Options before -- are filter's, those behind it shard's. Tasks of the last array expect as many rows as filter has kept
# in all its parts, so that nothing is packed while one is missing. The tree in shards/ is the same for any PARTS; the
# task that comes last writes sizes.json, and one that fails is run again as it is (`sbatch --array=7 …`).
set -euo pipefail
input=$1 kept=$2 output=$3
shift 3
rules=()
while (($#)) && [[ $1 != -- ]]; do
  rules+=("$1")
  shift
done
(($#)) && shift
parts=${PARTS:-16}

written=$(bash "$(dirname "$0")/filter-array.sh" "$input" "$kept" "${rules[@]}")
count="python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[\"rows\"][\"kept\"])'"
task="rows=\$($count $(printf '%q' "$kept/_vlcli/report.json")) &&
  $(printf '%q ' vlcli shard "$kept" "$@" -o "$output") --expect \$rows --part \$SLURM_ARRAY_TASK_ID/$parts"
packed=$(sbatch --parsable --array="0-$((parts - 1))" --cpus-per-task="${CPUS:-4}" --mem="${MEM:-4G}" \
  --dependency="afterok:$written" --wrap "$task")
echo "job $packed; then: vlcli check $output" >&2
