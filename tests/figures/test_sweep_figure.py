"""A sweep drawn: what stands on the axes is what was measured."""

import pytest

from vlcli.figures.canvas import render
from vlcli.figures.sweep import draw_sweep
from vlcli.training.sweep_table import Cell, Line, Table

COLUMN = ("x", "MR")


def table(axes, points, columns=(COLUMN,)):
    lines = [
        Line(
            dict(zip(axes, at, strict=True)),
            (0, 1),
            {c: Cell({0: value - 1.0, 1: value + 1.0}) for c in columns},
        )
        for at, value in points
    ]
    return Table(tuple(axes), (0, 1), list(columns), lines)


def drawn(axes):
    return [[tuple(map(float, point)) for point in bars.lines[0].get_xydata()] for bars in axes.containers]


def test_a_line_along_the_numbers_for_each_of_the_others():
    points = [(("a", "64"), 1.0), (("a", "8"), 2.0), (("b", "8"), 3.0), (("b", "64"), 4.0)]
    axes = draw_sweep(table(["recipe", "model.dim"], points)).axes[0]
    assert drawn(axes) == [[(8, 2), (64, 1)], [(8, 3), (64, 4)]]
    assert axes.get_xlabel() == "model.dim"
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_dots_where_no_axis_has_numbers():
    figure = draw_sweep(table(["variant"], [(("R2D2",), 5.0), (("没有蒸馏",), 2.0)]), title="a sweep")
    axes = figure.axes[0]
    assert drawn(axes) == [[(5, 0)], [(2, 1)]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["R2D2", "没有蒸馏"]
    assert render(figure, "png")[:4] == b"\x89PNG"


def test_a_panel_for_each_number_and_points_that_are_missing_are_left_out():
    columns = [("x", "MR"), ("y", "MR"), ("y", "top1"), ("y", "auc")]
    found = table(["model.dim"], [(("1",), 5.0), (("2",), 6.0)], columns)
    found.lines[1].cells["y", "auc"] = Cell({})
    figure = draw_sweep(found)
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in shown] == ["x: MR", "y: MR", "y: top-1", "y: AUC"]
    assert drawn(shown[3]) == [[(1, 5)]]


def test_the_same_bytes_every_time():
    found = table(["model.dim"], [(("1",), 5.0), (("2",), 6.0)])
    assert render(draw_sweep(found), "svg") == render(draw_sweep(found), "svg")


def test_one_point_alone():
    assert drawn(draw_sweep(table(["model.dim"], [(("1",), 5.0)])).axes[0]) == [[(5, 0)]]


def test_what_no_font_has_is_said():
    from vlcli.figures.fonts import NoFont

    with pytest.raises(NoFont, match="no glyph"):
        draw_sweep(table(["variant"], [(("\U000e0100\U0010fffd",), 5.0)]))
