"""A protocol on tables of pairs: which rows are of which class, their vectors, and the result as commands print it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from vlcli.errors import UsageError
from vlcli.evaluation.describe import describe
from vlcli.evaluation.probes.features import Features, image_vectors
from vlcli.evaluation.probes.labelled import Labelled
from vlcli.evaluation.probes.protocol import Protocol, probe, refuse_several
from vlcli.evaluation.tasks import Announce, silent
from vlcli.evaluation.truth import Truth, all_labels, column_labels, one_label, truth_of
from vlcli.text.labels import LabelSet


def probe_tables(
    model: Any,
    protocol: Protocol,
    test: Any,
    train: Any,
    val: Any = None,
    *,
    column: str = "label",
    labels: LabelSet | None = None,
    features: Features = "pre",
    split: str | None = None,
    lang: str | None = None,
    batch_size: int = 64,
    precision: str = "fp32",
    cache: Any = None,
    announce: Announce = silent,
    **how: Any,
) -> dict[str, Any]:
    """The object that `zeroshot --protocol` prints. `how` are options of `probe`.

    Without `labels` the classes are the values of `column` in all tables; with the metric "map11" rows may be of
    several. `train_in_test` counts training and validation rows whose image the test has, too. UsageError where two of
    the tables are one, and what `truth_of` and `probe` raise.
    """
    tables = {"train": train, "val": val, "test": test}
    tables = {name: table for name, table in tables.items() if table is not None}
    refuse_same(tables)
    several = how.get("metric") == "map11"
    refuse_several(protocol, several)
    labels = labels or _values(tables.values(), column)
    truths = {name: truth_of(table, column, labels, several=several) for name, table in tables.items()}
    found = {
        name: _labelled(model, table, truths[name], features, batch_size, precision, cache, announce, name)
        for name, table in tables.items()
    }
    return {
        **describe(model, test, [], split=split, lang=lang or "none"),
        "similarity": model.similarity_kind,
        "protocol": protocol,
        "features": features,
        "train": str(train.source),
        "val": None if val is None else str(val.source),
        "labels": labels.name,
        "prompts": "none",
        "n": len(found["test"]),
        "n_train": len(found["train"]),
        "n_val": len(found["val"]) if val is not None else 0,
        "classes": len(labels),
        "metric": how.get("metric", "top1"),
        **probe(protocol, found["train"], found["test"], len(labels), val=found.get("val"), **how),
        "left_out": truths["test"].left_out,
        "train_in_test": sum(_in_test(tables[name], test) for name in ("train", "val") if name in tables),
    }


def refuse_same(tables: Mapping[str, Any]) -> None:
    """UsageError where two of the tables are one: what is learnt from or chosen by tells nothing of the rest."""
    for (name, table), (other, rows) in combinations(tables.items(), 2):
        if table.split_hash == rows.split_hash and table.pictures_hash == rows.pictures_hash:
            raise UsageError(f"{name} and {other} rows are the same: {rows.source}")


def _in_test(table: Any, test: Any) -> int:
    """How many rows of `table` show a picture of `test`. Pictures of one name may differ: their bytes tell."""
    of_test = set(test.image_ids)
    alike = [i for i, image in enumerate(table.image_ids) if image in of_test]
    named = {table.image_ids[i] for i in alike}
    shown = {test.picture_key(i) for i, image in enumerate(test.image_ids) if image in named}
    return sum(table.picture_key(i) in shown for i in alike)


def _values(tables: Any, column: str) -> LabelSet:
    """The values of a column in several tables as classes."""
    values = (one_label(value) for table in tables for value in table.frame[column])
    return column_labels(column, [one for value in values for one in all_labels(value)])


def _labelled(
    model: Any,
    table: Any,
    truth: Truth,
    features: Features,
    batch_size: int,
    precision: str,
    cache: Any,
    announce: Announce,
    name: str,
) -> Labelled:
    vectors = image_vectors(
        model,
        table,
        features,
        rows=truth.rows,
        batch_size=batch_size,
        precision=precision,
        cache=cache,
        progress=announce(f"images, {name}", len(truth)),
    )
    return Labelled(vectors, truth.labels)
