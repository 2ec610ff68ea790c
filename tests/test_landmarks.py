"""--landmarks, as the two training commands take it: refusals, what is said, and exact resume."""

from pathlib import Path

import numpy as np
import pytest
from cli_cases import SIDE, Said, folders, refused, run
from small_runs import equal_arrays

from metric_learning.checks import UserError
from metric_learning.config import ElemOptions, PairOptions, parse
from metric_learning.config.names import OCCLUSION_BLOCKS
from metric_learning.data.face_warp import SIDE as ALIGNED_SIDE
from metric_learning.data.face_warp import TEMPLATE
from metric_learning.data.loader import Batch
from metric_learning.data.sources import PictureSet
from metric_learning.data.transforms import Window
from metric_learning.files import read_tensors
from metric_learning.stages.parts import _points_of

pytestmark = pytest.mark.filterwarnings("ignore:When training")

# ---- options


@pytest.mark.parametrize("kind", [ElemOptions, PairOptions])
@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("--occlusion=random --occlusion_shapes=left,eyes", "--occlusion_shapes=eyes needs the points"),
        ("--occlusion=random --landmarks=aligned", "--landmarks has no meaning without one of eyes, nose, mouth"),
        ("--landmarks=aligned", "--landmarks has no meaning without --occlusion=random"),
        ("--occlusion_shapes=eyes --landmarks=aligned", "--occlusion_shapes has no meaning without --occlusion=random"),
        ("--occlusion=random --occlusion_shapes=nose --landmarks=", "--landmarks is empty"),
        ("--occlusion=random --occlusion_shapes=nose,noze --landmarks=x", "Did you mean 'nose'?"),
        ("--occlusion=random --occlusion_shapes=nose,nose --landmarks=x", "names a shape twice"),
    ],
)
def test_options_that_cannot_be(kind, typed, words):
    with pytest.raises(UserError) as caught:
        parse(kind, typed.split())
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_blocks_are_asked_for_by_name():
    assert not set(parse(ElemOptions, ["--occlusion=random"]).shapes()) & set(OCCLUSION_BLOCKS)
    parse(PairOptions, ["--occlusion=random", "--occlusion_shapes=left,mouth", "--landmarks=x.csv"])


# ---- the points of a batch


@pytest.mark.parametrize("data_dir", ["", "list.csv"])
def test_the_points_of_a_batch_are_those_of_its_pictures_in_its_windows(data_dir, tmp_path):
    """Whatever pictures the loader has taken: the points go by the indices of those that were read."""
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    (tmp_path / "points.csv").write_text("".join(f"{number}.png{f',{number}' * 10}\n" for number in (0, 2)))
    (tmp_path / "list.csv").touch()
    config = ElemOptions(data_dir=str(tmp_path / data_dir), landmarks=str(tmp_path / "points.csv"))
    said: list[str] = []
    points_of = _points_of(config, PictureSet(paths, np.zeros(3, np.int64), ["a"], []), said.append)
    assert said == ["1 of 3 pictures have no landmarks; blocks cover nothing of them."]
    indices = np.array([2, 1, 0, 2])
    windows = [Window(-0.5, -0.5, width, 10, (9, 9), mirrored) for width, mirrored in ((5, 0), (5, 0), (5, 0), (8, 1))]
    found = points_of(Batch(0, np.zeros(0, np.float32), indices, indices, [], windows))
    assert np.isnan(found[1]).all()
    expected = np.array([[0.6, 0.3], [0.2, 0.1], [1 - 3 / 8, 0.3]])
    np.testing.assert_allclose(found[[0, 2, 3]], np.repeat(expected[:, None], 5, axis=1))
    assert _points_of(ElemOptions(), PictureSet([], indices, [], []), said.append)(found) is None


# ---- runs

LEAN = ("--model=MobileFaceNet", "--image_shape=3,48,48", "--onednn=False", "--train_batch_size=6", "--test_classes=0")
LEAN += ("--val_classes=0", "--lr_strategy=constant", "--lr=0.02", "--save_iter_step=1", "--keep=0", "--threads=1")
LEAN += ("--precision=float32", "--min_crop_area=0.5", "--occlusion_rate=1", "--total_iter_num=4")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return folders(tmp_path_factory.mktemp("faces"), classes=3, pictures=3)


def csv_of(data: Path, file: Path, count: int, template: np.ndarray = TEMPLATE) -> Path:
    """The template's points, which are where align puts them, for the first `count` pictures."""
    five = ",".join(str(value) for value in (template * SIDE / ALIGNED_SIDE).ravel().tolist())
    names = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.png"))
    file.write_text("".join(f"{name},{five}\n" for name in names[:count]))
    return file


def train(data: Path, place: Path, *typed: object, command: str = "train_elem") -> Said:
    return run(command, *LEAN, f"--data_dir={data}", f"--model_save_dir={place}", *map(str, typed))


def weights(place: Path) -> dict[str, np.ndarray]:
    (newest,) = place.glob("*/checkpoints/latest.safetensors")
    return read_tensors(newest)[0]


BLOCKS_ONLY = "--occlusion_shapes=eyes,nose,mouth"


@pytest.mark.slow
def test_a_list_of_the_aligned_points_is_as_good_as_the_word_and_a_resumed_run_is_the_same(data, tmp_path):
    points = csv_of(data, tmp_path / "points.csv", 99)
    kind = ("--occlusion=adversarial", BLOCKS_ONLY)
    for place, typed in {"word": "aligned", "list": points, "halves": points}.items():
        more = ["--total_iter_num=2"] if place == "halves" else []
        said = train(data, tmp_path / place, *kind, f"--landmarks={typed}", *more)
        assert said.status == 0 and "have no landmarks" not in said.out, said
    whole = weights(tmp_path / "word")
    equal_arrays(whole, weights(tmp_path / "list"))
    (half,) = (tmp_path / "halves").glob("elem-*")
    refused(run("train_elem", f"--checkpoint={half}", "--landmarks=x", small=False), f"keeps --landmarks={points}")
    said = run("train_elem", f"--checkpoint={half}", "--total_iter_num=4", small=False)
    assert said.status == 0 and "Resumed at step 2" in said.out, said
    equal_arrays(whole, weights(tmp_path / "halves"))


@pytest.mark.slow
def test_pictures_without_landmarks_are_counted_and_not_covered(data, tmp_path):
    kind = ("--pretrained_model=none", "--loss_name=eml", "--occlusion=random")
    blocks = (*kind, BLOCKS_ONLY)
    ways = {
        "nothing": (*kind, "--occlusion_rate=0"),
        "beside": (*blocks, f"--landmarks={csv_of(data, tmp_path / 'beside.csv', 9, TEMPLATE + 9999)}"),
        "some": (*blocks, f"--landmarks={csv_of(data, tmp_path / 'some.csv', 4)}"),
        "all": (*blocks, f"--landmarks={csv_of(data, tmp_path / 'all.csv', 9)}"),
    }
    ends = {}
    for place, typed in ways.items():
        said = train(data, tmp_path / place, *typed, command="train_pair")
        assert said.status == 0, said
        assert ("5 of 9 pictures have no landmarks; blocks cover nothing of them." in said.out) == (place == "some")
        assert ("have no landmarks" in said.out) == (place == "some")
        ends[place] = weights(tmp_path / place)
    equal_arrays(ends["nothing"], ends["beside"])
    one, some, every = (ends[place]["embedder.backbone.conv1.0.weight"] for place in ("nothing", "some", "all"))
    assert not np.array_equal(one, some) and not np.array_equal(one, every) and not np.array_equal(some, every)


def test_refusals_before_there_is_a_run(data, tmp_path):
    kind = ("--occlusion=random", BLOCKS_ONLY)
    (tmp_path / "other.csv").write_text("class00/none.png" + ",1" * 10)
    (tmp_path / "short.csv").write_text("class00/0.png,1,2")
    no = tmp_path / "runs"
    refused(
        train(data, no, *kind, f"--landmarks={tmp_path}/other.csv"), "other.csv has no training picture", "class00/0"
    )
    refused(train(data, no, *kind, f"--landmarks={tmp_path}/short.csv"), "short.csv:1: a row must have 11 columns")
    refused(train(data, no, *kind, "--landmarks=gone.csv"), "gone.csv cannot be read", "--landmarks")
    refused(train(data, no, *kind, "--landmarks=aligned", "--image_shape=3,32,32"), "2x2 at 32x32", "at least 3x3")
    assert not list(no.glob("*"))
