import csv
import random
from collections import Counter
from pathlib import Path

import pytest

from metric_learning.checks import UserError
from metric_learning.data.prepare import LIST, Amount, main, split_identities, table
from metric_learning.data.samples import Sample
from metric_learning.data.sources import read_parts, recognise
from metric_learning.data.splits import load_splits

# Of seed 0, share 0.1, without the Caucasian ones.
GOLDEN = ["African/Af6", "African/Af8", "Asian/As5", "Asian/As8", "Indian/In1"]
RACES = {"African": 20, "Asian": 11, "Caucasian": 57, "Indian": 2}


def faces(pictures: int = 3) -> list[Sample]:
    return [
        Sample(f"r/{race}/{race[:2]}{person}/{k}.jpg", f"{race}/{race[:2]}{person}", race)
        for race, people in RACES.items()
        for person in range(people)
        for k in range(pictures)
    ]


def on_disk(root: Path, samples: list[Sample]) -> Path:
    for sample in samples:
        path = root / Path(sample.path).relative_to("r")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def chosen(samples: list[Sample], **options: object) -> dict[str, str]:
    """label -> part; every picture of a label is in one part."""
    amount = options.pop("amount", Amount())
    prepared = split_identities(samples, amount, **options)
    parts: dict[str, str] = {}
    for sample, part in zip(prepared.samples, prepared.parts, strict=True):
        assert parts.setdefault(sample.label, part) == part
    return parts


def by_race(parts: dict[str, str]) -> dict[str, int]:
    return dict(Counter(label.split("/")[0] for label, part in parts.items() if part == "val"))


def test_each_race_gives_its_share_of_identities() -> None:
    parts = chosen(faces())
    assert len(parts) == sum(RACES.values())
    assert by_race(parts) == {"African": 2, "Asian": 2, "Caucasian": 6, "Indian": 1}
    assert by_race(chosen(faces(), amount=Amount(0.5))) == {"African": 10, "Asian": 6, "Caucasian": 29, "Indian": 1}
    assert by_race(chosen(faces(), amount=Amount(0.9)))["Indian"] == 1  # never the whole of a race
    assert by_race(chosen(faces(), amount=Amount(0))) == {}
    assert Amount(0.1).of([1, 2, 3, 4, 19, 100]) == [0, 1, 1, 2, 2, 10]


def test_a_number_of_identities_is_shared_out_in_proportion() -> None:
    found = by_race(chosen(faces(), amount=Amount(identities=45)))
    assert found == {"African": 10, "Asian": 6, "Caucasian": 28, "Indian": 1}  # 10, 5.5, 28.5, 1: the first of two ties
    assert by_race(chosen(faces(), amount=Amount(identities=0))) == {}
    with pytest.raises(UserError, match="--val_identities=89 leaves fewer than 2"):
        chosen(faces(), amount=Amount(identities=89))


def test_the_choice_depends_on_seed_and_names_alone() -> None:
    samples = faces()
    shuffled = random.Random(0).sample(samples, len(samples))
    first = chosen(samples, seed=1)
    assert chosen(shuffled, seed=1) == first
    assert chosen(samples, seed=2) != first
    # Another race more, or another picture, changes nothing for the rest.
    more = [*samples, *(Sample(f"r/Latin/l{k}/1.jpg", f"Latin/l{k}", "Latin") for k in range(9))]
    assert {label: part for label, part in chosen(more, seed=1).items() if "Latin" not in label} == first


def test_the_choice_of_seed_0_stays_what_it_was() -> None:
    """A later version must not move people between training and validation."""
    found = sorted(label for label, part in chosen(faces()).items() if part == "val" and "Caucasian" not in label)
    assert found == GOLDEN


def test_small_identities_are_left_out_and_singles_validate_last() -> None:
    samples = [*faces(2), *(Sample(f"r/Asian/one{k}/1.jpg", f"Asian/one{k}", "Asian") for k in range(30))]
    parts = chosen(samples)
    assert by_race(parts)["Asian"] == 4
    assert not [label for label, part in parts.items() if part == "val" and "one" in label]
    prepared = split_identities(samples, Amount(), min_pictures=2)
    assert len(prepared.samples) == len(faces(2))
    assert prepared.notes == ["left out: 30 identities, 30 pictures (--min_pictures=2)"]
    with pytest.raises(UserError, match="0 identities have 9 pictures or more"):
        split_identities(samples, Amount(), min_pictures=9)


def test_an_identity_of_two_races_is_reported_and_never_divided() -> None:
    samples = [*faces(), Sample("r/Asian/Af3/1.jpg", "Asian/Af3", "Asian"), Sample("r/Asian/Af3/2.jpg", "Asian/Af3")]
    for seed in range(20):
        prepared = split_identities(samples, Amount(0.8), seed=seed)
        (note,) = prepared.notes
        assert "1 identities are under more than one race (African/Af3, Asian/Af3)" in note
        parts = {sample.label: part for sample, part in zip(prepared.samples, prepared.parts, strict=True)}
        assert parts["African/Af3"] == parts["Asian/Af3"] == "train"


def test_numbered_folders_are_told_how_to_go_on() -> None:
    samples = [Sample("", f"{race}/{k}", race) for race in ("Asian", "Indian") for k in range(20) for _ in range(2)]
    with pytest.raises(UserError, match=r"Asian should give 2 .* --same_names=different"):
        split_identities(samples, Amount())
    prepared = split_identities(samples, Amount(), same_names="different")
    assert Counter(prepared.parts) == {"train": 72, "val": 8}
    assert "20 identities are under more than one race" in prepared.notes[0]


def test_the_table_adds_up() -> None:
    lines = table(split_identities(faces(), Amount(identities=45))).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["African", "10", "30", "10", "30"],
        ["Asian", "5", "15", "6", "18"],
        ["Caucasian", "29", "87", "28", "84"],
        ["Indian", "1", "3", "1", "3"],
        ["all", "45", "135", "45", "135"],
    ]
    assert len({len(line) for line in lines}) == 1


# ---- the list


def test_the_commands_take_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = on_disk(tmp_path / "r", faces())
    assert main([f"--data_dir={root}", f"--output={tmp_path / 'list'}"]) == 0
    out = capsys.readouterr().out
    assert "Caucasian" in out and "--test_classes=0" in out
    assert recognise(tmp_path / "list") == "csv"
    splits = load_splits(tmp_path / "list", test_classes=0)
    assert (len(splits.train.classes), len(splits.val.classes), len(splits.test)) == (79, 11, 0)
    assert set(splits.val.groups) == set(RACES)
    assert all(Path(path).is_file() for part in (splits.train, splits.val) for path in part.paths)
    by_list = load_splits(root, test_classes=0, train_list=tmp_path / "list" / LIST)
    assert by_list.val.paths == splits.val.paths
    assert sorted(read_parts(root, "groups")["all"]) == sorted(
        sample for part in read_parts(tmp_path / "list", "csv").values() for sample in part
    )


@pytest.mark.parametrize("output", [".", "r", "elsewhere"])
def test_paths_count_from_the_list_where_they_can(tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk(tmp_path / "r", faces(1))
    monkeypatch.chdir(tmp_path)
    assert main(["--data_dir=r", f"--output={output}", "--val_share=0.5"]) == 0
    with open(tmp_path / output / LIST, newline="") as file:
        rows = [*csv.DictReader(file)]
    prefix = {".": "r/", "r": "", "elsewhere": f"{tmp_path}/r/"}[output]
    assert {row["path"] for row in rows} == {prefix + sample.path[2:] for sample in faces(1)}
    samples = [sample for part in read_parts(tmp_path / output, "csv").values() for sample in part]
    assert all(Path(sample.path).is_file() for sample in samples)


def test_a_list_is_not_written_over_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, output = on_disk(tmp_path / "r", faces(1)), tmp_path / "list"
    arguments = [f"--data_dir={root}", f"--output={output}"]
    assert main(arguments) == 0
    before = (output / LIST).read_bytes()
    assert main([*arguments, "--seed=3"]) == 2
    assert f"{output / LIST} is there already" in capsys.readouterr().err
    assert (output / LIST).read_bytes() == before
    assert main([*arguments, "--seed=3", "--overwrite=True"]) == 0
    assert (output / LIST).read_bytes() != before
    assert [path.name for path in output.iterdir()] == [LIST]


@pytest.mark.parametrize("name", ["line\nbreak", " edge", "bad\udcff"])
def test_names_that_no_csv_can_carry_are_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = on_disk(tmp_path / "r", faces(1))
    (root / "Asian" / "As1" / "0.jpg").rename(root / "Asian" / "As1" / f"{name}.jpg")
    (root / "Asian" / "As1").rename(root / "Asian" / name)
    status = main([f"--data_dir={root}", f"--output={tmp_path / 'list'}"])
    if name == " edge":  # in the middle of a path and a label, a space is no harm
        assert status == 0
        assert f"Asian/{name}" in {s.label for part in read_parts(tmp_path / "list", "csv").values() for s in part}
        return
    assert status == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "list").exists()


def test_commas_and_quotes_survive(tmp_path: Path) -> None:
    root = on_disk(tmp_path / "r", faces(1))
    (root / "Asian" / "As1").rename(root / "Asian" / 'a, "b" #1 ü')
    assert main([f"--data_dir={root}", f"--output={tmp_path / 'list'}"]) == 0
    samples = [sample for part in read_parts(tmp_path / "list", "csv").values() for sample in part]
    assert 'Asian/a, "b" #1 ü' in {sample.label for sample in samples}
    assert all(Path(sample.path).is_file() for sample in samples)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data_dri=x"], "Unknown option --data_dri. Did you mean '--data_dir'?"),
        (["--data=x"], "Unknown option --data."),
        (["--output=x"], "required: --data_dir"),
        (["--data_dir=ROOT", "--output=OUT", "more"], "unrecognized arguments: more"),
        (["--data_dir=none", "--output=OUT"], "none does not exist"),
        (["--data_dir=ROOT", "--output=OUT", "--seed=x"], "--seed: invalid int value"),
        (["--data_dir=ROOT", "--output=OUT", "--val_share=1"], "--val_share must be at least 0 and at most 0.9; got 1"),
        (["--data_dir=ROOT", "--output=OUT", "--val_share=nan"], "--val_share must be"),
        (["--data_dir=ROOT", "--output=OUT", "--val_identities=-1"], "--val_identities must be at least 0"),
        (["--data_dir=ROOT", "--output=OUT", "--val_identities=5", "--val_share=0.2"], "give one of them"),
        (["--data_dir=ROOT", "--output=OUT", "--min_pictures=0"], "--min_pictures must be at least 1"),
        (["--data_dir=ROOT", "--output=OUT", "--same_names=none"], "--same_names: invalid choice"),
        (["--data_dir=ROOT", "--output=OUT", "--overwrite=maybe"], "--overwrite: must be True or False"),
        (["--data_dir=ROOT", "--output=FILE"], "is a file; name a folder"),
        (["--data_dir=ROOT/Asian", "--output=OUT"], "lies in no identity folder"),
        (["--data_dir=ROOT", "--output=LISTED"], "holds other.csv"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    on_disk(tmp_path / "ROOT", faces(1))
    (tmp_path / "FILE").write_text("")
    (tmp_path / "LISTED").mkdir()
    (tmp_path / "LISTED" / "other.csv").write_text("")
    places = ("ROOT", "OUT", "FILE", "LISTED")
    for place in places:
        arguments = [argument.replace(f"={place}", f"={tmp_path / place}") for argument in arguments]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not (tmp_path / "OUT").exists()
