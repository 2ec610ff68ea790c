"""Drawings of pairs and the figures above them, against plain loops."""

import naive_metrics as naive
import numpy as np
from page_cases import Page, embedded, material

from metric_learning.metrics import per_group, verification_metrics
from metric_learning.page.pair_charts import roc_chart
from metric_learning.page.verifying import cards
from metric_learning.page.writing import page_html


def test_the_numbers_of_the_roc_are_those_of_the_loop(tmp_path):
    found = embedded(tmp_path)
    page = Page(page_html(material(found)))
    pairs = naive.unordered_pairs(found.embeddings.tolist(), found.labels.tolist(), found.groups.tolist())
    assert {len(others) for _, others in pairs.values()} == {108}  # two decades of FAR
    for name, (same, others) in pairs.items():
        tars = [float(naive.share_accepted(same, naive.loosest_threshold(others, far))) for far in (0.1, 0.01)]
        expected = dict(zip(("1e-1", "1e-2"), [f"{100 * tar:.2f}" for tar in tars], strict=True))
        assert page.column("ROC of each group: TAR", name) == expected and tars[1] < tars[0] < 1


def test_the_numbers_of_the_roc_go_as_far_as_the_pairs():
    rng = np.random.default_rng(0)
    scores = {"many": (rng.normal(1, 1, 20_000), rng.normal(0, 1, 10_000)), "few": ([0.5, 0.9], [0.0] * 50 + [0.7] * 9)}
    rows = roc_chart(per_group(scores, fars=(0.1,))).numbers.rows
    assert [row[0] for row in rows] == ["1e-1", "1e-2", "1e-3", "1e-4"]
    assert [row[2] for row in rows] == ["50.00", "n/a", "n/a", "n/a"]
    exact = [100 * point.tar for point in verification_metrics(*scores["many"]).points]
    said = [float(row[1]) for row in rows]
    assert all(tar - 0.5 < shown <= tar + 0.005 for tar, shown in zip(exact, said, strict=True))
    assert [said[0], said[3]] == [round(exact[0], 2), round(exact[3], 2)]  # asked for; a corner of the curve


def test_the_card_says_how_many_pairs_of_two_are_accepted():
    result = per_group({"all": ([0.9] * 10, np.linspace(-0.5, 0.5, 1999))}, fars=(0.1, 1e-3))
    assert cards(result)[0].note.endswith(", and 1 of 1,999 of two")
