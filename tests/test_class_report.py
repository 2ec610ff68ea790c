"""The report of a classification: text, JSON and plot of anything that the metrics may find."""

import json
import math

import numpy as np
import pytest

from metric_learning import class_plot
from metric_learning.checks import UserError
from metric_learning.class_report import ClassReport, most_confused
from metric_learning.metrics.classification import classification
from metric_learning.plot import shortened

PNG = b"\x89PNG\r\n\x1a\n"
GENDER = ["male", "female"]


def two_groups():
    """north: 3 of 4 right; south: 1 of 2."""
    rows = [[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.4, 0.6], [0.1, 0.9]]
    return classification(rows, [0, 0, 1, 1, 0, 1], GENDER, ["north"] * 4 + ["south"] * 2)


def drawn(count, classes, groups=None, seed=0, names=None):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    rows = 0.5 * rng.dirichlet(np.ones(classes), count) + 0.5 * np.eye(classes)[labels]
    rows = np.where(rng.random((count, 1)) < 0.2, rows[:, ::-1], rows)
    members = [groups[i % len(groups)] for i in range(count)] if groups else None
    return classification(rows, labels, names or [f"class {i}" for i in range(classes)], members)


def line_of(text, start, after=""):
    return next(line for line in text[text.index(after) :].splitlines() if line.strip().startswith(start)).strip()


def test_text_says_all_of_it():
    report = ClassReport({"data": "demo", "pictures": 6}, two_groups(), "validation", ["Two labels look wrong."])
    text = report.text()
    assert text.startswith("data      demo\npictures  6\n\nClassification (validation), 2 classes")
    assert line_of(text, "all").split() == ["all", "6", "66.67", "30.00..90.32", "66.67", "0.8889", "0.4372", "0.3167"]
    assert line_of(text, "north").split()[:5] == ["north", "4", "75.00", "30.06..95.44", "75.00"]
    assert line_of(text, "south").split()[1:3] == ["2", "50.00"]
    assert line_of(text, "worst group") == "worst group: south (50.00 %); gap, best less worst: 25.00 points"
    assert line_of(text, "true class").split() == ["true", "class", "male", "female", "total", "recall", "%"]
    assert line_of(text, "male", after="true class").split() == ["male", "2", "1", "3", "66.67"]
    assert line_of(text, "female", after="true class").split() == ["female", "1", "2", "3", "66.67"]
    assert text.endswith("\n\nTwo labels look wrong.\n")
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_recall_is_by_true_class():
    found = classification(np.eye(2)[[0, 0, 1, 0]], [0, 0, 1, 1], GENDER)
    text = ClassReport({}, found).text()
    assert line_of(text, "male").split() == ["male", "2", "0", "2", "100.00"]
    assert line_of(text, "female").split() == ["female", "1", "1", "2", "50.00"]
    assert most_confused(found) == [("female", "male", 1, 0.5)]


def test_text_without_groups_without_pictures_and_of_an_absent_class():
    plain = ClassReport({}, drawn(30, 3)).text()
    assert plain.startswith("Classification (test), 3 classes")
    assert "worst" not in plain and "---" not in plain
    empty = ClassReport({}, classification(np.ones((0, 2)), [], GENDER, [])).text()
    assert line_of(empty, "all").split() == ["all", "0", *["undefined"] * 6]
    assert line_of(empty, "male").split() == ["male", "0", "0", "0", "undefined"]
    one = ClassReport({}, classification([[0.9, 0.1]], [0], GENDER, ["x"])).text()
    assert line_of(one, "x").split()[5] == "undefined"
    assert "worst" not in one and "nan" not in one


def test_many_classes_are_told_by_their_most_frequent_mistakes():
    labels = [0] * 5 + [1] * 4 + [2] * 3
    predicted = [13, 13, 13, 0, 2, 0, 0, 1, 1, 2, 2, 13]
    found = classification(np.eye(14)[predicted], labels, [f"class {i}" for i in range(14)])
    assert most_confused(found) == [
        ("class 0", "class 13", 3, 0.6),
        ("class 1", "class 0", 2, 0.5),
        ("class 0", "class 2", 1, 0.2),
        ("class 2", "class 13", 1, pytest.approx(1 / 3)),
    ]
    text = ClassReport({}, found).text()
    assert "Confusion matrix" not in text
    assert line_of(text, "class 0").split() == ["class", "0", "class", "13", "3", "60.00"]
    right = classification(np.eye(14), range(14), [f"class {i}" for i in range(14)])
    assert ClassReport({}, right).text().endswith("No picture was mistaken.\n")
    assert len(most_confused(drawn(400, 20))) == 10


def test_json_has_numbers_and_nulls_only(tmp_path):
    path = tmp_path / "found.json"
    ClassReport({"lr": math.nan, "pictures": np.int64(6)}, two_groups(), "val", ["a note"]).write_json(path)

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert found["about"] == {"lr": None, "pictures": 6} and found["split"] == "val" and found["notes"] == ["a note"]
    assert found["classes"] == GENDER and found["worst_group"] == "south" and found["accuracy_gap"] == 0.25
    assert found["all"]["accuracy"] == pytest.approx(2 / 3) and found["all"]["confusion"] == [[2, 1], [1, 2]]
    assert found["groups"]["north"]["interval"] == pytest.approx([0.3006, 0.9544], abs=1e-4)
    assert found["groups"]["south"]["roc_fpr"] == [0.0, 0.0, 1.0]
    assert found["most_confused"][0] == {"true": "male", "predicted": "female", "count": 1, "share": 1 / 3}
    assert set(found["all"]) == {
        *("count", "accuracy", "interval", "balanced_accuracy", "log_loss", "roc_auc", "calibration_error"),
        *("confusion", "roc_fpr", "roc_tpr"),
    }
    ClassReport({}, drawn(300, 120)).write_json(path)
    many = json.loads(path.read_text(encoding="utf-8"))
    assert many["all"]["confusion"] is None and len(many["most_confused"]) == 10
    ClassReport({}, classification(np.ones((0, 2)), [], GENDER)).write_json(path)
    assert json.loads(path.read_text(encoding="utf-8"))["all"]["accuracy"] is None


@pytest.mark.parametrize(
    "found",
    [
        two_groups(),
        drawn(300, 3),
        drawn(60, 2, names=["_hidden $x$ and a long, long name of a class", "$money_"], groups=["_a$", "$b", "c" * 99]),
        drawn(400, 2, groups=[f"group {i}" for i in range(40)]),
        drawn(60, 2, names=["男\udcff", "女\x1b\n"], groups=["\udcfe", "\U0001f9d1"]),
        drawn(400, 20, names=[f"\udcff男{i}" for i in range(20)]),
        drawn(400, 13, groups=["a", "b"]),
        drawn(400, 40),
        classification([[0.9, 0.1]], [0], GENDER, ["x"]),
        classification([[0.9, 0.1]], [1], GENDER),
        classification(np.eye(14), range(14), [f"class {i}" for i in range(14)]),
    ],
)
@pytest.mark.sweep
def test_plot_is_drawn_for_any_result(tmp_path, found):
    assert ClassReport({}, found).write_plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(PNG)
    assert [file.name for file in tmp_path.iterdir()] == ["plot.png"]


def test_no_plot_without_pictures(tmp_path):
    assert not ClassReport({}, classification(np.ones((0, 2)), [], GENDER)).write_plot(tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())


def panel_of(drawing, found, mistakes=()):
    from matplotlib.figure import Figure

    panel = Figure().subplots()
    drawing(panel, found, mistakes)
    return panel


def test_accuracies_are_sorted_and_have_their_intervals():
    panel = panel_of(class_plot._draw_accuracies, two_groups())
    assert [label.get_text() for label in panel.get_yticklabels()] == ["south (2)", "north (4)"]
    (whisker, point), whole = panel.lines[2:4], panel.lines[4]
    assert whisker.get_xdata() == pytest.approx([30.06, 95.44], abs=0.01) and list(whisker.get_ydata()) == [1, 1]
    assert list(point.get_xdata()) == [75.0]
    assert whole.get_xdata() == pytest.approx([200 / 3] * 2) and whole.get_label() == "all: 66.7 %"
    by_class = panel_of(class_plot._draw_accuracies, classification([[0.9, 0.1]] * 3, [0, 0, 1], ["a", "b"]))
    assert [label.get_text() for label in by_class.get_yticklabels()] == ["b (1)", "a (2)"]
    assert by_class.get_xlabel() == "recall, %"


def test_matrix_says_counts_and_shares():
    panel = panel_of(class_plot._draw_matrix, two_groups())
    texts = {tuple(text.get_position()): text.get_text() for text in panel.texts}
    assert texts[1, 0] == "1\n33.3 %" and texts[0, 0] == "2\n66.7 %"  # (predicted, true)
    turned = panel_of(class_plot._draw_matrix, classification(np.eye(2)[[0, 0, 0, 1]], [0, 1, 1, 1], GENDER))
    texts = {tuple(text.get_position()): text.get_text() for text in turned.texts}
    assert texts[0, 1] == "2\n66.7 %" and texts[1, 0] == "0\n0.0 %"
    absent = panel_of(class_plot._draw_matrix, classification([[0.9, 0.1]], [0], GENDER))
    assert [text.get_text() for text in absent.texts] == ["1\n100.0 %", "0\n0.0 %", "0", "0"]


def test_the_roc_shows_all_and_the_lowest_groups():
    panel = panel_of(class_plot._draw_roc, drawn(2000, 2, groups=[f"group {i:02d}" for i in range(20)]))
    labels = [text.get_text() for text in panel.get_legend().get_texts()]
    assert len(labels) == class_plot.MOST_CURVES + 1 and labels[-1].startswith("all (AUC 0.")
    looks = {(line.get_color(), line.get_linestyle()) for line in panel.lines[:-1]}
    assert len(looks) == class_plot.MOST_CURVES + 1
    assert panel.get_xlim()[1] > 99
    good = classification([[0.9, 0.1], [0.2, 0.8]], [0, 1], GENDER)
    assert panel_of(class_plot._draw_roc, good).get_ylim()[0] == pytest.approx(49.5)


@pytest.mark.parametrize("most", [24, 25])
def test_long_names_lose_their_middle(most):
    assert shortened("a" * most, most) == "a" * most
    long = shortened("begin" + "x" * 90 + "end", most)
    assert long.startswith("begin") and long.endswith("end") and len(long) == most


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for write in (ClassReport({}, two_groups()).write_json, ClassReport({}, two_groups()).write_plot):
        with pytest.raises(UserError, match="write") as error:
            write(tmp_path / "file" / "found")
        assert "\n" not in str(error.value)
