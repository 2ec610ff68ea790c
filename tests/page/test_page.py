"""The page of eval --report: its figures against plain loops, what it may hold, and how much."""

import dataclasses
import itertools
import re
from pathlib import Path

import naive_metrics as naive
import numpy as np
import pytest
from page_cases import FARS, Page, embedded, material, records

from metric_learning.evaluate import Embedded, HardPair
from metric_learning.page.learning import Curve, read_curves, section, thinned
from metric_learning.page.mistakes import worst_queries
from metric_learning.page.writing import page_html
from metric_learning.report import Report

MOST = 2_000_000
HOSTILE = "<script>alert(1)</script>\" onload='x' &amp; \x1b[31m\u202e\udcff"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return embedded(tmp_path_factory.mktemp("pictures") / "here")


@pytest.fixture(scope="module")
def page(found):
    return Page(page_html(material(found)))


def test_recall_is_that_of_the_loop(page, found):
    expected = naive.retrieval(found.embeddings, found.labels, ks=(1, 2, 3, 5, 10))
    shown = page.column("Recall@k, %", "All")
    assert {k: shown[k] for k in ("1", "2", "3", "5", "10")} == {
        str(k): f"{100 * expected[f'recall@{k}']:.2f}" for k in (1, 2, 3, 5, 10)
    }
    assert page.cards["Recall@1"] == f"{100 * expected['recall@1']:.2f} %"
    assert page.cards["MAP@R"] == f"{100 * expected['map@r']:.2f} %"
    assert 20 < 100 * expected["recall@1"] < 98


def test_recall_of_a_group_is_over_its_queries(page, found):
    hits, queries = 0, 0
    for i, group in enumerate(found.groups):
        if group == "Asian":
            nearest = naive.ranking(found.embeddings[i], found.embeddings, without=i)[0]
            hits, queries = hits + (found.labels[nearest] == found.labels[i]), queries + 1
    assert page.column("Recall@k, %", "Asian")["1"] == f"{100 * hits / queries:.2f}"


def test_verification_is_that_of_the_loop(page, found):
    pairs = naive.unordered_pairs(found.embeddings.tolist(), found.labels.tolist(), found.groups.tolist())
    negatives = [score for _, others in pairs.values() for score in others]
    threshold = naive.loosest_threshold(negatives, 0.01)
    frr = {name: 1 - float(naive.share_accepted(same, threshold)) for name, (same, _) in pairs.items()}
    shown = page.column("FRR of each group at one threshold for all", "FAR 1e-2")
    assert shown == {name: f"{100 * value:.2f}" for name, value in frr.items()}
    own = page.column("Ability", "FAR 1e-1")
    for name, (same, others) in pairs.items():
        tar = float(naive.share_accepted(same, naive.loosest_threshold(others, 0.1)))
        assert own[name].startswith(f"{100 * tar:.2f} (")
        assert page.column("Ability", "EER %")[name] == f"{100 * naive.equal_error_rate(same, others):.2f}"
    worst = max(frr, key=frr.get)
    at = page.column("Bias", "FAR 1e-2")
    assert at[worst].startswith(f"{100 * (1 - frr[worst]):.2f} / ")
    assert at["FRR, highest / lowest"] == f"{max(frr.values()) / min(frr.values()):.2f}"


def test_the_worst_are_those_that_rank_last():
    ranks, labels = np.array([0, 5, 1, 9, 5, 7, 2]), np.array([0, 1, 1, 2, 3, 2, 4])
    assert worst_queries(ranks, labels).tolist() == [3, 1, 4, 6]
    assert worst_queries(ranks, labels, 2).tolist() == [3, 1]
    assert worst_queries(np.array([1, 0]), np.array([0, 1])).tolist() == []


def test_a_row_of_the_worst_holds_the_query_its_wrong_neighbours_and_the_right_one(page, found):
    ranks = []
    for i in range(len(found.labels)):
        order = naive.ranking(found.embeddings[i], found.embeddings, without=i)
        ranks.append(next(n for n, j in enumerate(order, 1) if found.labels[j] == found.labels[i]))
    worst = int(np.argmax(ranks))
    assert f"1. class {found.labels[worst]}: first right one at rank {ranks[worst]}" in page.text
    order = naive.ranking(found.embeddings[worst], found.embeddings, without=worst)
    images = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    expected = [f"{n}: ✗ wrong: {j}.jpg" for n, j in enumerate(order[: min(4, ranks[worst] - 1)], 1)]
    right = f"{ranks[worst]}: ✓ right: {order[ranks[worst] - 1]}.jpg"
    assert images[: len(expected) + 2] == [f"Query: {worst}.jpg", *expected, right]


def test_nothing_from_outside_is_markup(found, tmp_path):
    names = [f"{label}{HOSTILE}" for label in range(9)]
    groups = np.array([f"{group}<b>" for group in found.groups])
    paths = [str(tmp_path / f"<i>{i}.jpg") for i in range(len(found.paths))]
    made = material(dataclasses.replace(found, groups=groups, paths=paths), names)
    about = {"data": HOSTILE, HOSTILE: HOSTILE}
    made = dataclasses.replace(made, report=dataclasses.replace(made.report, about=about))
    html = page_html(made)
    page = Page(html)
    assert "<script" not in html and "onload=" not in re.sub(r"&#34;.*?&#39;", "", html)
    assert not {"script", "b", "i"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text and "African<b>" in page.text
    assert html.isprintable() or not re.search(r"[\x00-\x09\x0b-\x1f\u202e\ud800-\udfff]", html)
    html.encode()
    assert "can't be read" in page.text  # the pictures are not there


def test_nothing_is_fetched_and_no_script_may_run(page):
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in links)
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    assert "default-src 'none'" in policy and "script-src" not in policy
    assert not {"script", "link", "iframe", "object", "image", "use", "foreignObject"} & {tag for tag, _ in page.tags}


def test_the_page_is_built_for_those_who_do_not_see_it(page):
    tags = page.tags
    assert len(page.ids()) == len(set(page.ids()))
    for tag, attributes in tags:
        if tag == "svg" and "aria-hidden" not in attributes:
            assert attributes["role"] == "img" and set(attributes["aria-labelledby"].split()) <= set(page.ids())
        if tag == "img":
            assert attributes["alt"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
        if tag == "a":
            assert attributes["href"][1:] in page.ids()
    heads = [int(tag[1]) for tag, _ in tags if re.fullmatch("h[1-6]", tag)]
    assert heads[0] == 1 and heads.count(1) == 1 and all(b - a <= 1 for a, b in itertools.pairwise(heads))
    assert len(page.tables) == [tag for tag, _ in tags].count("table")


def test_the_page_stays_below_its_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("metric_learning.page.mapping.neighbour_map", lambda rows: rows[:, :2].astype(float))
    names = [f"{'long name ' * 40}{label}" for label in range(240)]
    rng = np.random.default_rng(0)
    found = embedded(tmp_path / ("d" * 100), classes=240, each=4, noise=1.0)
    groups = np.array([f"{'group ' * 40}{label % 120}" for label in found.labels])
    made = material(dataclasses.replace(found, groups=groups), names)
    about = {f"fact {i}": "x" * 100_000 for i in range(9)}
    curves = {f"val/{i}": Curve(np.arange(9000.0), rng.random(9000)) for i in range(50)}
    html = page_html(dataclasses.replace(made, report=dataclasses.replace(made.report, about=about)))
    drawn = section(Path("run"), curves)
    size = len(html.encode()) + sum(len(chart.svg) for block in drawn.blocks[1:] for chart in block.charts)
    assert MOST / 20 < size < MOST
    assert "40 of 120 groups" in html and "114 groups" in html


# ---- what is not there


def test_without_groups(found):
    page = Page(page_html(material(dataclasses.replace(found, groups=None))))
    assert "the data has no groups" in page.text and "Bias" not in page.text
    assert page.cards["EER"].endswith("%") and "Recall@1" in page.cards


def test_a_list_of_pairs(found):
    made = material(found)
    hardest = [HardPair(found.paths[0], found.paths[1], True, 0.1, "Asian"), HardPair("a", "b", False, 0.9, "")]
    report = dataclasses.replace(made.report, retrieval=None, pairs="pairs.txt")
    page = Page(page_html(dataclasses.replace(made, report=report, embedded=None, hardest=hardest)))
    assert "not which class each is of" in page.text and "pairs.txt" in page.text
    assert "Same, and least alike" in page.text and "1: cosine 0.100, Asian" in page.text
    assert not {"map", "worst", "suspects", "retrieval"} & set(page.ids())


@pytest.mark.parametrize("labels", [[0, 0], [0, 1], [0, 1, 2, 3, 4], [0] * 6])
def test_hardly_anything(labels):
    found = Embedded(np.eye(8, dtype=np.float32)[: len(labels)], np.array(labels), None, ["no.jpg"] * len(labels))
    html = page_html(material(found))
    assert "nan" not in Page(html).text.lower() and "Written" not in html


def test_a_report_of_nothing_but_retrieval(found):
    made = material(found)
    page = Page(page_html(dataclasses.replace(made, report=Report({}, made.report.retrieval))))
    assert "there are no pairs of two classes" in page.text and "the weights are of no run" in page.text


def test_reranked_figures_stand_beside_the_others(found):
    made = material(found)
    report = dataclasses.replace(made.report, reranked=dict.fromkeys(made.report.retrieval, 0.125), reranked_how="k1=9")
    page = Page(page_html(dataclasses.replace(made, report=report)))
    assert set(page.column("Figures of retrieval", "Re-ranked, %").values()) == {"12.50"} and "k1=9" in page.text


def test_equal_embeddings(found):
    same = dataclasses.replace(found, embeddings=np.ones_like(found.embeddings))
    assert "undefined" in page_html(material(same)) or "nan" not in Page(page_html(material(same))).text


# ---- learning curves


def test_curves_are_read_and_newer_ones_win(tmp_path):
    assert read_curves(tmp_path) == {}
    records(tmp_path, {"train/loss": {1: 4.0, 2: 3.0, 3: 2.0}, "val/recall@1": {0: 0.1, 3: 0.5}})
    (first,) = (tmp_path / "visualdl").iterdir()
    first.rename(first.with_name("vdlrecords.0000000001.log"))
    records(tmp_path, {"train/loss": {3: 2.5, 4: float("nan"), 5: 1.0}})
    (tmp_path / "visualdl" / "vdlrecords.9.log").write_bytes(b"\x10\0\0\0\0\0\0\0no record")
    curves = read_curves(tmp_path)
    assert curves["train/loss"].steps.tolist() == [1, 2, 3, 5]
    assert curves["train/loss"].values.tolist() == [4.0, 3.0, 2.5, 1.0]
    np.testing.assert_allclose(curves["val/recall@1"].values, [0.1, 0.5], rtol=1e-6)


def test_the_curves_of_a_run_are_on_the_page(found, tmp_path):
    records(tmp_path, {"train/loss": {1: 4.0, 2: 3.0}, "train/lr": {1: 0.1, 2: 0.1}, "val/recall@1": {0: 0.25, 2: 0.5}})
    page = Page(page_html(material(found, run=tmp_path, trained=True)))
    assert page.column("Loss in training", "Last") == {"loss": "3"}
    assert page.column("Scores on the validation classes", "Highest") == {"recall@1": "50"}
    assert "trained on classes of these names" in page.text
    page = Page(page_html(material(found, run=tmp_path / "other")))
    assert "no records that can be read" in page.text


def test_thinning_keeps_the_ends():
    curve = thinned(Curve(np.arange(1000.0), np.arange(1000.0) ** 2), 50)
    assert len(curve.steps) == 50 and curve.steps[[0, -1]].tolist() == [0, 999]
    assert (curve.values == curve.steps**2).all()
    assert thinned(Curve(np.arange(3.0), np.ones(3)), 50).steps.tolist() == [0, 1, 2]


def test_the_fars_of_the_cases_are_on_the_page(page):
    assert all(f"FAR {text}" in page.text for text in ("1e-1", "1e-2")) and len(FARS) == 3
