import json

import numpy as np
import pytest

from metric_learning import fonts
from metric_learning.checks import UserError
from metric_learning.metrics import (
    all_pairs,
    best_accuracy,
    per_group,
    retrieval_metrics,
    ten_fold_accuracy,
    verification_metrics,
)
from metric_learning.plot import MOST_GROUPS, rate, verification_png
from metric_learning.report import Report, table

PNG = b"\x89PNG\r\n\x1a\n"


def two_groups():
    same = {"north": [0.9, 0.8, 0.7, 0.2], "south": [0.9, 0.8, 0.3, 0.2]}
    other = {"north": [0.5, *[0.0] * 9], "south": [0.6, *[0.1] * 9]}
    return per_group({name: (same[name], other[name]) for name in same}, fars=(0.1, 1e-4))


def full_report():
    return Report(
        about={"data": "demo", "pictures": np.int64(5), "lr": float("nan"), "flip_test": False},
        retrieval=retrieval_metrics(np.eye(5)[[0, 0, 1, 1, 2]], [0, 0, 1, 1, 2]),
        verification=two_groups(),
        pairs="pairs.txt",
        folds={"north": ten_fold_accuracy(np.arange(20) / 20, np.arange(20) >= 10), "south": ten_fold_accuracy([], [])},
        best={"north": best_accuracy([0.9, 0.6, 0.4, 0.2], [1, 0, 1, 0]), "south": best_accuracy([], [])},
    )


def line_of(text, start, after=""):
    return next(line for line in text[text.index(after) :].splitlines() if line.strip().startswith(start)).strip()


def test_table_aligns_names_left_and_numbers_right():
    assert table([["group", "n"], ["a", "10"], ["", ""], ["bc", "7"]]) == "group   n\na      10\n---------\nbc      7"


def test_text_says_all_of_it():
    text = full_report().text()
    assert text.startswith("data       demo\npictures   5\n")
    assert "5 queries, 4 valid, 1 without a positive" in text
    assert line_of(text, "Recall@1 ").split() == ["Recall@1", "100.00"]
    assert line_of(text, "Recall@1, all").startswith("Recall@1, all    80.00  a query without")
    assert "Verification over pairs.txt" in text
    assert line_of(text, "north").split() == ["north", "4", "10", "0.9750", "10.00"]
    # One of ten: north is blocked by 0, south by .1, so both accept all their positives.
    assert line_of(text, "south", after="Ability").split()[:3] == ["south", "100.00", "(0.100)"]
    assert "n/a (needs 10,000 negatives)" in line_of(text, "north", after="Ability")
    # Two of twenty: .6 and .5 pass, blocked by .1.
    assert line_of(text, "north", after="Bias").split()[1:4] == ["100.00", "/", "10"]
    assert line_of(text, "FRR max / min", after="Bias").split()[-2:] == ["undefined", "undefined"]
    assert line_of(text, "groups measured", after="Bias").split()[-3:] == ["0", "of", "2"]
    assert line_of(text, "south", after="Accuracy over folds").split() == ["south", "0", "undefined", "undefined"]
    assert "optimistic" in line_of(text, "Accuracy at the best")
    assert line_of(text, "north", after="Accuracy at the best").split() == ["north", "75.00", "0.4000"]
    assert line_of(text, "south", after="Accuracy at the best").split() == ["south", "undefined", "undefined"]
    assert not any(line != line.rstrip() for line in text.splitlines())
    assert "nan" not in text.replace("nan\n", "", 1).lower()


def test_figures_after_a_re_ranking_stand_beside_the_others():
    rows, labels = np.eye(5)[[0, 0, 1, 1, 2]], [0, 1, 1, 0, 2]
    plain, better = retrieval_metrics(rows, labels), retrieval_metrics(np.eye(5)[[0, 1, 1, 0, 2]], labels)
    report = Report(retrieval=plain, reranked=better, reranked_how="k1=20, 0.1 s")
    assert "without a positive; on the right re-ranked by k-reciprocal neighbours (k1=20, 0.1 s)" in report.text()
    assert line_of(report.text(), "Recall@1 ").split() == ["Recall@1", "0.00", "100.00"]
    assert line_of(report.text(), "Recall@1, all").startswith("Recall@1, all     0.00   80.00  a query without")
    assert report.to_dict()["reranked"] == {**better, "how": "k1=20, 0.1 s"}
    assert "reranked" not in Report(retrieval=plain).to_dict()


def test_one_group_has_no_bias_table():
    text = Report(verification=all_pairs(np.eye(3), [0, 0, 1])).text()
    assert "Ability" in text
    assert "Bias" not in text
    assert "TAR mean" not in text


def test_text_of_nothing():
    assert Report().text() == "\n"
    empty = Report(retrieval=retrieval_metrics(np.ones((0, 2)), []), verification=per_group({}))
    assert "0 queries" in empty.text()
    assert line_of(empty.text(), "Recall@1 ").split() == ["Recall@1", "undefined"]


def test_json_has_numbers_and_nulls_only(tmp_path):
    path = tmp_path / "found.json"
    full_report().write_json(path)

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert found["about"] == {"data": "demo", "pictures": 5, "lr": None, "flip_test": False}
    assert found["retrieval"]["recall_all@1"] == 0.8
    assert found["verification"]["groups"]["north"]["points"][1]["needs"] == 10000
    assert found["verification"]["groups"]["north"]["points"][1]["tar"] is None
    assert found["verification"]["at_global"]["south"][0]["far"] == 0.1
    assert found["verification"]["groups"]["north"]["roc_far"] == [0.0, 0.1]
    assert found["folds"]["south"]["mean"] is None
    assert found["best_threshold"] == {
        "north": {"accuracy": 0.75, "threshold": 0.4},
        "south": {"accuracy": None, "threshold": None},
    }
    Report().write_json(path)
    assert json.loads(path.read_text(encoding="utf-8"))["verification"] is None


@pytest.mark.parametrize(
    "result",
    [
        two_groups(),
        all_pairs(np.eye(3), [0, 0, 1]),
        # Names that a plotting library takes for something else, a group without pairs, no FAR that can be measured.
        per_group({"_a": ([0.5], [0.1]), "$b": ([0.5], [0.1]), "c": ([], [])}, fars=(1e-6,)),
        # No error at all, and a group whose FRR is undefined.
        per_group({"a": ([1.0], [0.0] * 20), "b": ([], [0.0] * 20)}, fars=(0.1,)),
        per_group({f"group {i}": ([0.9, 0.1 * i], [0.5, 0.1 * i]) for i in range(9)}, fars=(0.1,)),
        # Bytes that are no text, control characters, letters that the font lacks.
        per_group({"\udcff\x1b\n": ([0.5], [0.1] * 9), "男": ([0.5], [0.1] * 9), "\U0001f9d1": ([0.5], [0.1] * 9)}),
    ],
)
@pytest.mark.sweep
def test_plot_is_drawn_for_any_result(tmp_path, result):
    assert Report(verification=result).write_plot(tmp_path / "roc.png")
    assert (tmp_path / "roc.png").read_bytes().startswith(PNG)
    assert [file.name for file in tmp_path.iterdir()] == ["roc.png"]


def test_letters_that_the_font_lacks_come_from_a_font_of_the_system():
    if not fonts.eastern():
        pytest.skip("no font with Chinese letters")
    plots = {verification_png(per_group({name: ([0.9], [0.1] * 9)}, fars=(0.1,)), "all pairs") for name in "男女"}
    assert len(plots) == 2  # two empty boxes look alike


def test_a_path_that_is_no_text_stands_in_the_title():
    assert verification_png(two_groups(), "the 9 pairs of \udcff.txt").startswith(PNG)


def test_of_many_groups_those_with_the_most_pairs_are_drawn(monkeypatch):
    from matplotlib.figure import Figure

    from metric_learning.plot import _draw_bars, _draw_roc

    names = [f"group {i} " + "x" * 60 for i in range(40)]
    result = per_group({name: ([0.9, 0.05] * (i + 1), [0.1] * 20) for i, name in enumerate(names)}, fars=(0.1, 0.05))
    left, right = Figure().subplots(1, 2)
    _draw_roc(left, result)
    _draw_bars(right, result)
    shown = [text.get_text() for text in left.get_legend().get_texts()]
    assert [said.split()[1] for said in shown] == [str(i) for i in range(40 - MOST_GROUPS, 40)]
    assert max(map(len, shown)) < 50
    assert len({(line.get_color(), line.get_linestyle()) for line in left.lines[:-2]}) == MOST_GROUPS
    bars = [bars[0] for bars in right.containers]
    assert len(bars) == len({(bar.get_facecolor(), bar.get_hatch()) for bar in bars}) == MOST_GROUPS
    said = []
    monkeypatch.setattr(Figure, "suptitle", lambda self, text, **look: said.append(text))
    verification_png(result, "all pairs")
    assert said == [f"Verification over all pairs; drawn: {MOST_GROUPS} of 40 groups, those with the most pairs"]


def test_no_plot_without_pairs(tmp_path):
    for report in (Report(), Report(verification=per_group({"a": ([], [0.5])}))):
        assert not report.write_plot(tmp_path / "roc.png")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="write") as error:
        full_report().write_json(tmp_path / "file" / "found.json")
    assert "\n" not in str(error.value)


def test_rates_read_like_people_write_them():
    assert [rate(far) for far in (0.5, 0.25, 0.1, 0.05, 1e-3, 1e-6)] == ["0.5", "0.25", "1e-1", "5e-2", "1e-3", "1e-6"]


def test_plot_curve_starts_at_the_least_measurable_rate():
    from matplotlib.figure import Figure

    from metric_learning.plot import _draw_roc

    # No positive is above the second negative: at one false accept in ten TAR is 0, not that of the next corner.
    result = per_group({"a": ([0.5, 0.4], [0.9, 0.8, *[0.0] * 8])}, fars=(0.1,))
    panel = Figure().subplots()
    _draw_roc(panel, result)
    assert panel.lines[0].get_xydata().tolist() == [[0.1, 0.0], [0.2, 100.0], [1.0, 100.0]]
    assert verification_metrics([0.5, 0.4], [0.9, 0.8, *[0.0] * 8]).roc_far.tolist() == [0.2]


def test_plot_bars_are_for_measurable_rates_only():
    from matplotlib.figure import Figure

    from metric_learning.plot import _draw_bars

    panel = Figure().subplots()
    _draw_bars(panel, two_groups())
    assert [label.get_text() for label in panel.get_xticklabels()] == ["1e-1\n(cosine >= 0.100)"]
    # At .1 and above: north rejects none of .9 .8 .7 .2, south none of .9 .8 .3 .2.
    assert [bar.get_height() for bar in panel.patches] == [0, 0]


def test_plot_of_good_curves_shows_the_part_of_the_scale_where_they_differ():
    from matplotlib.figure import Figure

    from metric_learning.plot import _draw_roc

    for tar, bottom in ((98, 90), (92, 80), (50, 40), (3, 0)):
        panel = Figure().subplots()
        _draw_roc(panel, per_group({"a": ([0.9] * tar + [-0.9] * (100 - tar), [0.0] * 20)}, fars=(0.1,)))
        assert panel.get_ylim() == (bottom, 100 + 0.01 * (100 - bottom))


def test_a_long_title_is_broken_into_lines(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    said = []
    monkeypatch.setattr(Figure, "suptitle", lambda self, text, **look: said.append(text))
    report = Report(verification=all_pairs(np.eye(3), [0, 0, 1]), pairs="the 9 pairs of " + "folder/" * 20 + "$x.txt")
    assert report.write_plot(tmp_path / "roc.png")
    assert max(map(len, said[0].split("\n"))) <= 71 and said[0].endswith("\\$x.txt")
