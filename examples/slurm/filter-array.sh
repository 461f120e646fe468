#!/usr/bin/env bash
# A corpus filtered by job arrays: three that follow each other, since rules that count need the whole corpus first.
#
#   PARTS=64 bash examples/slurm/filter-array.sh raw/ kept/ --preset wukong
#
# The files in kept/ are the same for any PARTS. A task that fails is run again as it is (`sbatch --array=7 …`): units that
# stand are skipped. Queries are numbered by the first array, texts counted by the second, and the third, whose job is
# printed, writes.
set -euo pipefail
input=$1 output=$2
shift 2
parts=${PARTS:-16}
counts=$output.counts

step() { # step DEPENDENCY COMMAND…: an array of tasks i of n; prints the id of the job
  sbatch --parsable --array="0-$((parts - 1))" --cpus-per-task="${CPUS:-4}" --mem="${MEM:-4G}" ${1:+--dependency=afterok:$1} \
    --wrap "$(printf '%q ' "${@:2}") --part \$SLURM_ARRAY_TASK_ID/$parts"
}

numbered=$(step "" vlcli filter "$input" "$@" --count-only -o "$counts")
counted=$(step "$numbered" vlcli filter "$input" "$@" --count-only -o "$counts")
written=$(step "$counted" vlcli filter "$input" "$@" --counts "$counts" -o "$output")
echo "jobs $numbered, $counted, $written; then: vlcli shard $output -o shards/" >&2
echo "$written"
