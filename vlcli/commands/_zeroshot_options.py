"""Options of `zeroshot`: what is asked, what is learnt from, and what a set of images is reported by."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from vlcli.commands import _complete as complete

LEARNING = "Learning from labelled images"  # panels of --help
SETS = "Public sets"
NEIGHBOURS, SHOTS = 20, 5  # where the options do not say


class Task(StrEnum):
    """What is asked of a model that was trained for neither."""

    classify = "classify"
    matching = "matching"
    simlex = "simlex"
    compositional = "compositional"


class Ensemble(StrEnum):
    """How scores of several templates become one."""

    similarity = "similarity"
    probability = "probability"


class PredictionsAs(StrEnum):
    """How predictions are written."""

    jsonl = "jsonl"
    elevater = "elevater"


class Protocol(StrEnum):
    """What answers: names, or what is learnt from labelled images on the checkpoint's fixed features."""

    zero_shot = "zero-shot"
    knn = "knn"
    linear_probe = "linear-probe"
    ridge = "ridge"
    few_shot = "few-shot"


class Features(StrEnum):
    """Before or after the projection into the joint space."""

    pre = "pre"
    post = "post"


class Metric(StrEnum):
    """The number that a set is reported by."""

    top1 = "top1"
    mean_per_class = "mean_per_class"
    mean_top1_top5 = "mean_top1_top5"
    map11 = "map11"
    auc = "auc"


def _learning(*names: str, help: str, metavar: str | None = None) -> Any:
    return Option(*names, help=help, metavar=metavar, rich_help_panel=LEARNING)


TaskOption = Annotated[
    Task,
    Option(
        "--task",
        help="Name the class of each image; tell whether its text fits it (the AUC of an R2D2's match probability, "
        "with 1 or 0 in the label column); compare words as people do (--data SimLex-999.txt); tell captions of "
        "nearly the same words apart (--dataset sugarcrepe, winoground or aro).",
    ),
]
Labels = Annotated[
    str | None,
    Option(
        "--labels",
        metavar="FILE",
        help="A name per line (line k, from 0, for label k) or key<TAB>name.",
        show_default="the column's own values",
    ),
]
EnsembleOption = Annotated[
    Ensemble,
    Option(
        "--ensemble",
        help="Average over templates: text vectors or token-wise similarities (the papers), or "
        "probabilities over the classes (Wukong's released evaluation).",
    ),
]
Predictions = Annotated[
    Path | None,
    Option(
        "--predictions",
        metavar="OUT.jsonl",
        help="The five best classes of every image, or, of rows that may be without labels, the match probability "
        "(--task matching).",
    ),
]
PredictionsAsOption = Annotated[
    PredictionsAs,
    Option(
        "--predictions-as",
        help="Lines, or ELEVATER's file of one of its sets: the probabilities of all classes. report --format "
        "elevater makes a submission of such files.",
    ),
]
LabelColumn = Annotated[
    str, Option("--label-column", metavar="NAME", help="The column that holds the class.")
]
ProtocolOption = Annotated[
    Protocol,
    _learning(
        "--protocol",
        help="Answer by the names of the classes, or by what is learnt from --train: nearest neighbours, a linear "
        "probe (L-BFGS, CLIP's search of the penalty), a ridge regression, or one of --shots rows a class.",
    ),
]
Train = Annotated[
    list[str] | None, _learning("--train", metavar="FILE", help="Rows to learn from; repeatable.")
]
Val = Annotated[
    list[str] | None,
    _learning(
        "--val", metavar="FILE", help="Rows that choose the penalty; never those of --data. Repeatable."
    ),
]
FeaturesOption = Annotated[
    Features,
    _learning("--features", help="The image tower's pooled output, or what the projection makes of it."),
]
K = Annotated[
    int | None,
    Option(
        "--k",
        min=1,
        metavar="N",
        help="Neighbours that vote.",
        show_default=str(NEIGHBOURS),
        rich_help_panel=LEARNING,
    ),
]
L2 = Annotated[
    float | None,
    Option("--l2", min=0.0, metavar="X", help="This penalty, and no search.", rich_help_panel=LEARNING),
]
Shots = Annotated[
    int | None,
    Option(
        "--shots",
        min=1,
        metavar="N",
        help="Rows of each class, drawn three times.",
        show_default=str(SHOTS),
        rich_help_panel=LEARNING,
    ),
]
Dataset = Annotated[
    str | None,
    Option(
        "--dataset",
        metavar="NAME",
        help="The public set that --data is: of labelled images, whose number is shown first and departures from whose "
        "counts are told; or, in its published files, of compositional captions or of --task matching (icm, iqm).",
        rich_help_panel=SETS,
        autocompletion=complete.zeroshot_sets,
    ),
]
MetricOption = Annotated[
    Metric | None,
    Option(
        "--metric",
        help="The number to go by; map11: VOC 2007's average precision, of images of several classes; those that a "
        "column `difficult` names count neither way.",
        show_default="that of --dataset, else top1",
        rich_help_panel=SETS,
    ),
]
Classes = Annotated[
    str | None,
    Option(
        "--classes",
        metavar="imagenet-a|imagenet-r|FILE",
        help="Only these classes of --labels: a label a line. Images of the others are left out.",
        rich_help_panel=SETS,
        autocompletion=complete.words("imagenet-a", "imagenet-r"),
    ),
]
