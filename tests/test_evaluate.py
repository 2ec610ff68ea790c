"""Data sets and lists of pairs through a predictor into the metrics."""

import pickle
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from small_runs import write_pictures
from teams import run_team
from test_compare import Means, reader

from metric_learning.checks import UserError
from metric_learning.data.loader import BadPictures
from metric_learning.data.pair_lists import read_templates
from metric_learning.data.pair_sources import read_pairs
from metric_learning.data.sources import PictureSet, Sample
from metric_learning.evaluate import embed_set, retrieval, verification, verify_pairs
from metric_learning.extract import embed
from metric_learning.metrics import ALONE, scores_of_pairs
from metric_learning.metrics.similarity import Calibration, StoredPoint
from metric_learning.metrics.stored_points import StoredCounts


@pytest.fixture
def pictures(tmp_path) -> PictureSet:
    return write_pictures(tmp_path / "pictures", 4, 3)


def grouped(pictures: PictureSet) -> PictureSet:
    samples = [
        Sample(path, pictures.classes[label], "even" if label % 2 == 0 else "odd")
        for path, label in zip(pictures.paths, pictures.labels, strict=True)
    ]
    return PictureSet.of(samples)


# ---- a set


def test_labels_groups_and_paths_stay_with_their_pictures(pictures, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    whole = grouped(pictures)
    bad = PictureSet(
        [str(tmp_path / "bad.jpg"), *whole.paths], np.append(3, whole.labels), whole.classes, ["odd", *whole.groups]
    )
    found = embed_set(Means(), bad, reader(), BadPictures(13, 1.0))
    assert found.paths == whole.paths and found.labels.tolist() == whole.labels.tolist()
    assert found.groups.tolist() == whole.groups and len(found.embeddings) == 12
    assert embed_set(Means(), pictures, reader(), BadPictures(12)).groups is None


def test_classes_of_one_colour_are_found_again(pictures):
    found = embed_set(Means(), grouped(pictures), reader(), BadPictures(12))
    assert retrieval(found)["recall@1"] == 1.0
    result = verification(found, (0.1, 0.01))
    assert set(result.groups) == {"even", "odd"}
    assert [result.groups[name].positives for name in ("even", "odd")] == [6, 6]
    assert [result.groups[name].negatives for name in ("even", "odd")] == [9, 9]


def test_a_team_gets_the_figures_and_the_counts_of_one_process(pictures):
    found = embed_set(Means(), grouped(pictures), reader(), BadPictures(12))
    calibration = Calibration(1.0, StoredPoint(0.9, 0.1, 12, 18), {}, {})

    def figures(team):
        counts = StoredCounts(calibration)
        result = verification(found, (0.1,), counts, team)
        return retrieval(found, team), result.pooled, counts.figures()

    assert run_team(3, figures) == [figures(ALONE)] * 3
    assert figures(ALONE)[2].pooled.tar is not None


# ---- a list of pairs


def pairs_file(folder, text: str, name: str = "pairs.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_pairs_with_a_bad_picture_are_left_out_and_counted(pictures, tmp_path):
    paths = pictures.paths
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    rows = ["a,b,same,group", f"{paths[0]},none.jpg,0,only bad"]
    rows += [f"bad.jpg,{paths[0]},1,g", f"{paths[0]},bad.jpg,0,h"]
    for a in range(12):
        for b in range(a + 1, 12):
            rows.append(f"{paths[a]},{paths[b]},{int(a // 3 == b // 3)},{'gh'[a % 2]}")
    pairs = read_pairs(pairs_file(tmp_path, "\n".join(rows) + "\n"), None)
    bad = BadPictures(14, 1.0)
    found = verify_pairs(Means(), pairs, reader(), bad, (0.1,))
    result = found.verification
    assert found.left_out == 3 and len(bad) == 2 and set(result.groups) == {"g", "h"}
    assert sum(group.positives for group in result.groups.values()) == 12
    assert sum(group.negatives for group in result.groups.values()) == 54
    assert result.groups["g"].points[0].tar == 1.0
    with pytest.raises(UserError, match="--max_bad_pictures"):
        verify_pairs(Means(), pairs, reader(), BadPictures(14, 0.01), (0.1,))


def test_wrong_answers_lower_the_rate(pictures, tmp_path):
    """The answer of a pair goes with that pair."""
    paths = pictures.paths
    same = [(a, b) for a in range(12) for b in range(a + 1, 12) if a // 3 == b // 3]
    apart = [(a, (a + 3) % 12) for a in range(12)]
    rows = [f"{paths[a]},{paths[b]},{int(a // 3 == b // 3)}" for a, b in same + apart]
    right = read_pairs(pairs_file(tmp_path, "a,b,same\n" + "\n".join(rows) + "\n"), None)
    turned = [row[:-1] + str(1 - int(row[-1])) for row in rows]
    wrong = read_pairs(pairs_file(tmp_path, "a,b,same\n" + "\n".join(turned) + "\n"), None)
    tars = []
    for pairs in (right, wrong):
        found = verify_pairs(Means(), pairs, reader(), BadPictures(12), (0.2,))
        tars.append(found.verification.groups["all"].points[0].tar)
    assert tars == [1.0, 0.0]


def test_a_list_without_a_usable_pair_is_one_line(pictures, tmp_path):
    text = f"a,b,same\n{pictures.paths[0]},none1.jpg,1\n{pictures.paths[1]},none2.jpg,0\n"
    pairs = read_pairs(pairs_file(tmp_path, text), None)
    with pytest.raises(UserError) as caught:
        verify_pairs(Means(), pairs, reader(), BadPictures(4, 1.0), (0.1,))
    assert "pair" in str(caught.value) and "\n" not in str(caught.value)


# ---- folds, the best threshold, missing pictures


def listed(pictures, tmp_path, header: str = "", rows=()) -> str:
    """The pictures as people p0..p3, picture n as p0/p0_000n, and a list of pairs of them."""
    for path, label in zip(pictures.paths, pictures.labels, strict=True):
        place = tmp_path / f"p{label}"
        place.mkdir(exist_ok=True)
        (place / f"p{label}_{len(list(place.iterdir())) + 1:04d}.png").write_bytes(Path(path).read_bytes())
    return pairs_file(tmp_path, "\n".join([header, *rows]) + "\n", "pairs.txt")


SAME = [f"p{i}\t{a}\t{b}" for i in range(4) for a, b in ((1, 2), (1, 3))]
OTHER = [f"p{i}\t{n}\tp{(i + 1) % 4}\t{n}" for i in range(4) for n in (1, 2)]


def test_view_two_has_folds_and_no_best_threshold(pictures, tmp_path):
    rows = [row for f in range(4) for row in (*SAME[2 * f : 2 * f + 2], *OTHER[2 * f : 2 * f + 2])]
    pairs = read_pairs(listed(pictures, tmp_path, "4\t2", rows), None)
    found = verify_pairs(Means(), pairs, reader(), BadPictures(12), (0.2,))
    assert (
        len(found.folds["all"].accuracies) == 4
        and found.folds["all"].mean >= 0.75
        and not found.best
        and not found.left_out
    )
    assert len(verify_pairs(Means(), pairs, reader(), BadPictures(12), (0.2,), 2).folds["all"].accuracies) == 2


def test_view_one_has_a_best_threshold_and_folds_if_asked_for(pictures, tmp_path):
    pairs = read_pairs(listed(pictures, tmp_path, "8", [*SAME, *OTHER]), None)
    found = verify_pairs(Means(), pairs, reader(), BadPictures(12), (0.2,))
    assert found.best["all"].accuracy >= 0.9 and not found.folds
    found = verify_pairs(Means(), pairs, reader(), BadPictures(12), (0.2,), 4)
    assert len(found.folds["all"].accuracies) == 4 and found.folds["all"].mean >= 0.75


def test_a_pair_that_is_left_out_moves_no_other_to_another_fold(pictures, tmp_path):
    rows = [row for f in range(4) for row in (*SAME[2 * f : 2 * f + 2], *OTHER[2 * f : 2 * f + 2])]
    path = listed(pictures, tmp_path, "4\t2", rows)
    (tmp_path / "p0" / "p0_0003.png").write_bytes(b"no picture")  # in the second pair only
    pairs = read_pairs(path, None)
    with mock.patch("metric_learning.evaluate.ten_fold_accuracy") as fold:
        found = verify_pairs(Means(), pairs, reader(), BadPictures(12, 1.0), (0.2,))
    assert found.left_out == 1 and fold.call_args.args[2].tolist() == [0] * 3 + [1] * 4 + [2] * 4 + [3] * 4


def test_groups_have_folds_of_their_own(pictures, tmp_path):
    rows = ["a,b,same,group"]
    for a in range(12):
        for b in range(a + 1, 12):
            rows.append(f"{pictures.paths[a]},{pictures.paths[b]},{int(a // 3 == b // 3)},{'gh'[a % 2]}")
    pairs = read_pairs(pairs_file(tmp_path, "\n".join(rows) + "\n"), None)
    found = verify_pairs(Means(), pairs, reader(), BadPictures(12), (0.2,), 3)
    assert set(found.folds) == set(found.best) == {"g", "h"}
    assert all(len(each.accuracies) == 3 and each.mean > 0.9 for each in found.folds.values())


def test_missing_pictures_are_counted_before_any_is_embedded(pictures, tmp_path):
    path = listed(pictures, tmp_path, "8", [*SAME, *OTHER[:6], "p0\t7\tp1\t8", "p0\t1\tnobody\t1"])
    pairs, eyes = read_pairs(path, None), Means()
    with pytest.raises(UserError, match=r"3 of the 15 pictures of --pairs are missing.*p0_0007.*--data_dir") as caught:
        verify_pairs(eyes, pairs, reader(), BadPictures(13, 0.1), (0.2,))
    assert "\n" not in str(caught.value) and eyes.seen == 0
    bad = BadPictures(13, 0.5)
    assert verify_pairs(eyes, pairs, reader(), bad, (0.2,)).left_out == 2
    assert len(bad) == 3 and f"{path}:16 names it" in bad.lines()[0] + bad.lines()[1] + bad.lines()[2]


def test_pairs_of_positives_only(pictures, tmp_path):
    text = f"a,b,same\n{pictures.paths[0]},{pictures.paths[1]},1\n{pictures.paths[3]},{pictures.paths[4]},1\n"
    pairs = read_pairs(pairs_file(tmp_path, text), None)
    found = verify_pairs(Means(), pairs, reader(), BadPictures(4), (0.2,), 10)
    group = found.verification.groups["all"]
    assert (group.positives, group.negatives, group.points[0].needs, group.eer, group.auc) == (2, 0, 5, None, None)
    assert found.best["all"].accuracy == 1.0 and len(found.folds["all"].accuracies) == 2


def test_encoded_pictures_are_measured_like_files(pictures, tmp_path):
    order = [(0, 1), (3, 4), (6, 7), (0, 3), (1, 6), (4, 9)]
    data = [Path(pictures.paths[i]).read_bytes() for pair in order for i in pair]
    (tmp_path / "x.bin").write_bytes(pickle.dumps((data, [True] * 3 + [False] * 3)))
    rows = [f"{pictures.paths[a]},{pictures.paths[b]},{int(n < 3)}" for n, (a, b) in enumerate(order)]
    results = []
    for path in (tmp_path / "x.bin", pairs_file(tmp_path, "a,b,same\n" + "\n".join(rows) + "\n")):
        eyes = Means()
        found = verify_pairs(eyes, read_pairs(str(path), None), reader(), BadPictures(12), (0.4,), 3)
        results.append((found.verification.groups["all"].points, found.folds, eyes.seen))
    assert results[0] == results[1] and results[0][2] == 7


def test_templates_are_compared_as_one_embedding(pictures, tmp_path):
    paths = pictures.paths
    (tmp_path / "bad.png").write_bytes(b"no picture")
    rows = [f"{path},t{i // 3}{'ab'[i % 2]},m{i}" for i, path in enumerate(paths)]
    pairs_file(tmp_path, "\n".join(["path,template,media", *rows, "bad.png,gone,m", "bad.png,t0a,m"]), "templates.csv")
    text = "a,b,same\nt0a,t0b,1\nt1a,t1b,1\nt0a,t1a,0\nt2b,t3b,0\nt0a,gone,1\n"
    pairs = read_pairs(pairs_file(tmp_path, text), None, of_templates=True)
    templates, eyes = read_templates(tmp_path / "templates.csv", None), Means()
    with mock.patch("metric_learning.evaluate.scores_of_pairs", wraps=scores_of_pairs) as scored:
        found = verify_pairs(eyes, pairs, reader(), BadPictures(13, 1.0), (0.5,), templates=templates)
    assert found.left_out == 1 and found.verification.groups["all"].positives == 2 and eyes.seen == 12
    rows, a, b = scored.call_args.args
    _, single = embed(Means(), paths, reader(), BadPictures(12))
    for row, of in ((a[0], (0, 2)), (b[0], (1,)), (a[2], (0, 2)), (b[2], (4,))):
        total = single[list(of)].sum(axis=0)
        assert rows[row] == pytest.approx(total / np.linalg.norm(total), abs=1e-6)
    unknown = read_pairs(pairs_file(tmp_path, "a,b,same\nt0a,who,1\n"), None, of_templates=True)
    with pytest.raises(UserError, match="1 templates that --templates has not, 'who'"):
        verify_pairs(eyes, unknown, reader(), BadPictures(13, 1.0), (0.5,), templates=templates)
