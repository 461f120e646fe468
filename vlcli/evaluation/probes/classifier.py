"""A linear probe that is kept: the frozen tower with the head that the published search found."""

from __future__ import annotations

from typing import Any

from vlcli.errors import UsageError
from vlcli.evaluation.classifier import classes_of
from vlcli.evaluation.probes.features import image_vectors
from vlcli.evaluation.probes.labelled import Labelled
from vlcli.evaluation.probes.linear import Probe, fit, linear_probe
from vlcli.evaluation.tasks import Announce, silent
from vlcli.models.classifier import Classifier, with_head


def probed(
    source: Any,
    train: Any,
    val: Any = None,
    test: Any = None,
    *,
    column: str = "label",
    l2: float | None = None,
    batch_size: int = 64,
    precision: str = "fp32",
    announce: Announce = silent,
) -> tuple[Classifier, Probe, dict[str, int]]:
    """A classifier on the frozen tower of `source` (a dual encoder), the search, and how many rows each table has.

    The features are the tower's pooled output, not projected and not normalised; λ is chosen on `val` (see
    linear.py) or given, then the head learns from both. `test` is only compared with the others: nothing of it is read.
    UsageError where nothing chooses, for the rest see `classes_of`.
    """
    if val is None and l2 is None:
        raise UsageError(
            "a linear probe chooses its penalty on validation rows",
            remedy="name them with --val, or give the penalty with --l2",
        )
    tables = {"train": train, "val": val, "test": test}
    labels, truths = classes_of({name: t for name, t in tables.items() if t is not None}, column)
    rows: dict[str, Labelled] = {}
    for name in ("train", "val"):
        if name not in truths:
            continue
        truth = truths[name]
        vectors = image_vectors(
            source,
            tables[name],
            "pre",
            rows=truth.rows,
            batch_size=batch_size,
            precision=precision,
            progress=announce(f"images, {name}", len(truth)),
        )
        rows[name] = Labelled(vectors, truth.labels)
    if "val" in rows:
        found = linear_probe(rows["train"], rows["val"], len(labels), l2=l2)
    else:
        assert l2 is not None, "checked above"
        found = Probe(fit(rows["train"], len(labels), l2), l2, {})
    names = tuple(str(label) for label in labels.names)
    model = with_head(source, names, found.head.weight, found.head.bias)
    return model, found, {name: len(truth) for name, truth in truths.items()}
