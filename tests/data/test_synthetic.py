"""The embedded demo set: determinism, the folder's layout, atomic writing, and that identity shows through nuisance."""

import errno
import hashlib
import itertools
import json
import os
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.data import synthetic
from metric_learning.data.faces.draw import NUISANCE
from metric_learning.data.faces.people import SHIFTS, TRAITS, Nuisance, draw_traits
from metric_learning.data.synthetic import GROUPS, contact_sheet, draw_face, write_demo_faces


def write(root, **arguments):
    return write_demo_faces(str(root), progress=False, **({"identities": 1, "pictures": 2} | arguments))


def contents(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in pathlib.Path(root).rglob("*.jpg")}


# Determinism


def test_a_picture_is_a_function_of_its_four_numbers():
    places = list(itertools.product((0, 7), GROUPS[:2], (0, 3), (0, 1)))
    once = {place: draw_face(*place) for place in places}
    draw_traits.cache_clear()
    for place in reversed(places):
        np.testing.assert_array_equal(draw_face(*place), once[place])
    assert len({picture.tobytes() for picture in once.values()}) == len(places)


def test_a_picture_is_the_same_in_another_process():
    code = (
        "import hashlib; from metric_learning.data.synthetic import draw_face;"
        "print(hashlib.sha256(draw_face(3, 'Indian', 5, 2).tobytes()).hexdigest())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    repository = pathlib.Path(__file__).parents[2]
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=repository, check=True
    )
    assert there.stdout.strip() == hashlib.sha256(draw_face(3, "Indian", 5, 2).tobytes()).hexdigest()


def test_files_are_the_same_whatever_else_is_written(tmp_path):
    small = contents(write(tmp_path / "small", identities={"Asian": 2}, pictures=2))
    large = contents(write(tmp_path / "large", identities={"Asian": 3, "Indian": 1}, pictures=3))
    assert len(small) == 4
    assert small.items() <= large.items()


def test_pictures_of_one_person_differ_even_without_noise():
    quiet = Nuisance(noise=0.0, scene=0.0)
    pictures = {draw_face(0, "Asian", 0, picture, quiet).tobytes() for picture in range(4)}
    assert len(pictures) == 4


def test_without_nuisance_every_picture_of_a_person_is_the_same():
    first, second = (draw_face(0, "African", 0, picture, Nuisance.none()) for picture in (0, 1))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", [n for n in Nuisance.__dataclass_fields__ if n != "habit"])
def test_every_nuisance_changes_pictures(name):
    """Each alone, at 1; habits need a person who has one, see below."""
    alone = Nuisance(**dict.fromkeys(Nuisance.__dataclass_fields__, 0.0) | {name: 1.0})
    assert getattr(NUISANCE, name) > 0
    plain = draw_face(0, "Asian", 1, 0, Nuisance.none())
    assert any((draw_face(0, "Asian", 1, picture, alone) != plain).any() for picture in range(4))


def test_habits_come_and_go():
    wearer = next(i for i in range(50) if draw_traits(0, "Indian", i)["glasses"] > 0.3)
    only = Nuisance(**dict.fromkeys(Nuisance.__dataclass_fields__, 0.0) | {"habit": 1.0})
    pictures = [draw_face(0, "Indian", wearer, picture, only).tobytes() for picture in range(12)]
    assert 1 < len(set(pictures)) < len(pictures)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_pictures_are_small_rgb_arrays(seed):
    picture = draw_face(seed, "Caucasian", 2**24 - 2, 2**24 - 2)
    assert picture.shape == (112, 112, 3)
    assert picture.dtype == np.uint8


def test_extreme_poses_are_drawn_too():
    wild = Nuisance(yaw=40, pitch=40, roll=60, shift=60, scale=0.8, occlusion_chance=1.0, hat_chance=1.0)
    for picture in range(30):
        assert draw_face(1, GROUPS[picture % 4], picture, picture, wild).shape == (112, 112, 3)
    draw_face(1, "Caucasian", 12, 1, wild)  # a sliver of the face at the picture's edge


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ((0, "asian", 0, 0), "Did you mean 'Asian'"),
        ((-1, "Asian", 0, 0), "seed"),
        ((2**63, "Asian", 0, 0), "seed"),
        ((0, "Asian", -1, 0), "identity"),
        ((0, "Asian", 2**24, 0), "identity"),
        ((0, "Asian", 0, -1), "picture"),
        ((0, "Asian", 0, 2**24 - 1), "picture"),  # this one stands for the person
    ],
)
def test_a_picture_that_cannot_be(place, part):
    with pytest.raises(UserError, match=part):
        draw_face(*place)


# The folder


def test_layout_and_counts(tmp_path):
    root = write(tmp_path / "demo", identities=2, pictures=3)
    assert root == str(tmp_path / "demo")
    assert sorted(p.name for p in (tmp_path / "demo").iterdir()) == [*sorted(GROUPS), "demo_faces.json"]
    expected = {f"{g}/{g}_{i:03d}/{p:02d}.jpg" for g in GROUPS for i in range(2) for p in range(3)}
    files = contents(root)
    assert set(files) == expected
    assert len(set(files.values())) == len(files)


def test_files_are_real_pictures_near_the_drawing(tmp_path):
    root = write(tmp_path / "demo", identities={"Indian": 1}, pictures=1, seed=4)
    read = cv2.imread(os.path.join(root, "Indian", "Indian_000", "00.jpg"), cv2.IMREAD_UNCHANGED)
    drawn = draw_face(4, "Indian", 0, 0)[:, :, ::-1].astype(float)
    assert read.shape == (112, 112, 3)
    assert np.abs(read - drawn).mean() < 8.0  # JPEG at 92 keeps most of it; red and blue swapped would be further off
    assert np.abs(read[:, :, ::-1] - drawn).mean() > np.abs(read - drawn).mean()


def test_a_number_for_each_group(tmp_path):
    root = write(tmp_path / "demo", identities={"Caucasian": 3, "African": 1, "Asian": 0}, pictures=1)
    count = {group: len([f for f in contents(root) if f.startswith(group)]) for group in GROUPS}
    assert count == {"African": 1, "Asian": 0, "Caucasian": 3, "Indian": 0}


def test_apart_is_in_the_manifest_and_the_pictures(tmp_path):
    plain, apart = (write_demo_faces(str(tmp_path / str(a)), 1, 1, progress=False, apart=a) for a in (0.0, 0.8))
    manifests = [json.loads((pathlib.Path(root) / "demo_faces.json").read_text()) for root in (plain, apart)]
    assert "apart" not in manifests[0] and manifests[1] == manifests[0] | {"apart": 0.8}
    picture = "Asian/Asian_000/00.jpg"
    assert (pathlib.Path(plain) / picture).read_bytes() != (pathlib.Path(apart) / picture).read_bytes()
    with pytest.raises(UserError, match="apart of the demo faces"):
        write_demo_faces(str(tmp_path / "c"), 1, 1, apart=1.5)


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "demo").mkdir()
    assert len(contents(write(tmp_path / "demo"))) == 8


def test_a_finished_folder_is_used_again(tmp_path, monkeypatch):
    write(tmp_path / "demo")
    monkeypatch.setattr(synthetic, "draw_face", lambda *_: pytest.fail("drawn again"))
    assert write(tmp_path / "demo") == str(tmp_path / "demo")
    assert write(tmp_path / "demo", identities=dict.fromkeys(GROUPS, 1)) == str(tmp_path / "demo")


def test_a_relative_path_with_a_slash_at_its_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert write_demo_faces("a/demo/", identities={"Asian": 1}, pictures=1, progress=False) == "a/demo/"
    assert os.listdir("a") == ["demo"]


@pytest.mark.parametrize("change", [{"pictures": 3}, {"seed": 1}, {"identities": 2}, {"identities": {"Asian": 4}}])
def test_other_arguments_are_an_error(tmp_path, change):
    write(tmp_path / "demo")
    before = contents(tmp_path / "demo")
    with pytest.raises(UserError, match="another folder or remove") as caught:
        write(tmp_path / "demo", **change)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path / "demo") == before


def test_another_version_of_the_drawings_is_an_error(tmp_path, monkeypatch):
    write(tmp_path / "demo")
    monkeypatch.setattr(synthetic, "VERSION", synthetic.VERSION + 1)
    with pytest.raises(UserError, match='"version"'):
        write(tmp_path / "demo")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="no demo set"):
        write(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    with pytest.raises(UserError, match=r"mine\.txt"):
        write(tmp_path / "mine.txt")
    with pytest.raises(UserError, match=r"mine\.txt"):
        write(tmp_path / "mine.txt" / "below")


def test_a_damaged_folder_is_an_error(tmp_path):
    write(tmp_path / "demo")
    (tmp_path / "demo" / "Asian" / "Asian_000" / "01.jpg").unlink()
    with pytest.raises(UserError, match="7 of 8"):
        write(tmp_path / "demo")
    (tmp_path / "demo" / "demo_faces.json").write_text("{")
    with pytest.raises(UserError, match="can't be read"):
        write(tmp_path / "demo")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"pictures": 0}, "pictures"),
        ({"seed": -1}, "seed"),
        ({"identities": 0}, "in all"),
        ({"identities": {}}, "in all"),
        ({"identities": -1}, "African"),
        ({"identities": {"Asian": -1, "Indian": 5}}, "Asian"),
        ({"identities": {"Asia": 5}}, "Did you mean 'Asian'"),
    ],
)
def test_senseless_arguments(tmp_path, arguments, part):
    with pytest.raises(UserError, match=part):
        write(tmp_path / "demo", **arguments)
    assert os.listdir(tmp_path) == []


# Whole or not at all


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, error):
    def stopping(seed, group, identity, picture, **more):
        if group == "Caucasian":
            raise error
        return draw_face(seed, group, identity, picture)

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "draw_face", stopping)
        with pytest.raises(type(error)):
            write(tmp_path / "demo")
    assert os.listdir(tmp_path) == []
    assert len(contents(write(tmp_path / "demo"))) == 8


def test_a_killed_write_leaves_nothing_that_looks_finished(tmp_path):
    code = (
        "import os, signal; from metric_learning.data import synthetic;"
        "die = lambda path, rgb: os.kill(os.getpid(), signal.SIGKILL) if '/Asian' in path else None;"
        "synthetic._write_picture = die;"
        f"synthetic.write_demo_faces({str(tmp_path / 'demo')!r}, 1, 2, progress=False)"
    )
    repository = pathlib.Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=repository, check=False).returncode == -9
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".demo.partial-")
    assert not (tmp_path / left / "demo_faces.json").exists()
    assert len(contents(write(tmp_path / "demo"))) == 8


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(path, rgb):
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(synthetic, "_write_picture", full)
    with pytest.raises(UserError, match="No space left") as caught:
        write(tmp_path / "demo")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("same", [True, False])
def test_the_loser_of_a_race_uses_the_winners_folder(tmp_path, monkeypatch, same):
    drawn = synthetic._write_all

    def overtaken(folder, wanted, progress):
        drawn(folder, wanted, progress)
        monkeypatch.setattr(synthetic, "_write_all", drawn)
        write(tmp_path / "demo", seed=0 if same else 1)
        (tmp_path / "demo" / "winner").touch()

    monkeypatch.setattr(synthetic, "_write_all", overtaken)
    if same:
        write(tmp_path / "demo")
    else:
        with pytest.raises(UserError, match="made with"):
            write(tmp_path / "demo")
    assert (tmp_path / "demo" / "winner").exists()
    assert os.listdir(tmp_path) == ["demo"]


def test_the_folder_can_be_read_by_others(tmp_path):
    (tmp_path / "plain").mkdir()
    write(tmp_path / "demo", identities={"Asian": 1})
    assert (tmp_path / "demo").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_manifest_says_what_was_asked(tmp_path):
    write(tmp_path / "demo", identities={"Asian": 1}, seed=9)
    counts = dict.fromkeys(GROUPS, 0) | {"Asian": 1}
    found = json.loads((tmp_path / "demo" / "demo_faces.json").read_text())
    assert found == {"version": synthetic.VERSION, "identities": counts, "pictures": 2, "seed": 9}


# What the pictures carry


def distances(nuisance):
    """Mean pixel distances within and between identities, over a few people of every group."""
    people = [(group, identity) for group in GROUPS for identity in range(4)]
    pictures = np.array([[draw_face(0, g, i, p, nuisance) for p in range(4)] for g, i in people], dtype=np.float64)
    within, between = [], []
    for a, b in itertools.combinations(range(len(people) * 4), 2):
        distance = np.abs(pictures[a // 4, a % 4] - pictures[b // 4, b % 4]).mean()
        (within if a // 4 == b // 4 else between).append(distance)
    return np.mean(within), np.mean(between)


def test_people_differ_more_than_their_pictures():
    within, between = distances(NUISANCE)
    assert within < between
    within, between = distances(Nuisance(noise=0.0, light=0.0, exposure=0.0, gamma=0.0, temperature=0.0, scene=0.0))
    assert within < 0.75 * between


def test_traits_keep_their_bounds_and_vary():
    for group in GROUPS:
        drawn = [draw_traits(0, group, identity) for identity in range(200)]
        for name, spread in TRAITS.items():
            values = [traits[name] for traits in drawn]
            assert min(values) >= spread.low and max(values) <= spread.high
            assert len(set(values)) > 20


def test_groups_overlap_in_every_trait():
    """What is middling in one group is usual (5..95 %) in every other."""
    people = {group: [draw_traits(1, group, identity) for identity in range(300)] for group in GROUPS}
    for name in TRAITS:
        values = {group: [traits[name] for traits in drawn] for group, drawn in people.items()}
        for one, other in itertools.permutations(GROUPS, 2):
            low, high = np.quantile(values[one], [0.05, 0.95])
            assert low <= np.median(values[other]) <= high, (name, one, other)


@pytest.mark.parametrize("group", GROUPS)
def test_groups_that_are_apart_vary_in_traits_of_their_own(group):
    places = {name: place for place, name in enumerate(TRAITS)}
    spread = {
        apart: {name: np.std([draw_traits(2, group, i, apart)[name] for i in range(300)]) for name in TRAITS}
        for apart in (0.0, 0.5, 1.0)
    }
    for name, place in places.items():
        own = place % 4 == (GROUPS.index(group) + 1) % 4
        assert (spread[1.0][name] > spread[0.0][name]) if own else spread[1.0][name] == pytest.approx(0, abs=1e-9), name
        assert (spread[0.5][name] > spread[0.0][name]) == own, name


def test_shifts_are_small_and_name_real_traits():
    assert set(SHIFTS) == set(GROUPS)
    for shifts in SHIFTS.values():
        assert set(shifts) <= set(TRAITS)
        assert max(map(abs, shifts.values())) < 1.0
        assert sum(map(abs, shifts.values())) / len(TRAITS) < 0.1


def test_people_of_other_groups_and_seeds_are_other_people():
    drawn = [draw_traits(seed, group, i) for seed in (0, 1) for group in GROUPS for i in range(50)]
    assert len({traits["eye_gap"] + traits["nose_length"] for traits in drawn}) == len(drawn)


def test_contact_sheet():
    sheet = contact_sheet(seed=2, identities=1, pictures=2, side=112)
    assert sheet.shape == (2 * (20 + 112), 4 * 112 + 8, 3)
    np.testing.assert_array_equal(sheet[20:132, 112:224], draw_face(2, "African", 0, 1))
    np.testing.assert_array_equal(sheet[152:, 232:344], draw_face(2, "Indian", 0, 0))
    assert contact_sheet(identities=2, pictures=1, side=40).shape == (2 * (20 + 80), 88, 3)
