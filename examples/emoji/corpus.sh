# For the scripts beside it to source: the training shards of the corpus and a JSONL file of each split, in $out.
# Needs $here (the folder of this file), $out, and $splits, of which val-artist is always one.
map=text=name,text_candidates=keywords
export VLCLI_CACHE=${VLCLI_CACHE:-$out/cache}

mkdir -p "$out"
vlcli filter "$here/raw.parquet" --map $map --where "split = 'train'" --preset wukong --min-side '>=64' -q |
    vlcli shard -o "$out/shards" --force -q
for split in val-artist $splits; do
    vlcli filter "$here/raw.parquet" --map $map --where "split = '$split'" -o "$out/$split.jsonl" --force -q
done
