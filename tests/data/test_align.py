from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from metric_learning.checks import UserError
from metric_learning.data import align
from metric_learning.data.align import LEFT_OUT, Detector, align_folder, choose_face, main
from metric_learning.data.face_warp import TEMPLATE, similarity, warp_face
from metric_learning.data.landmarks import read_landmarks
from metric_learning.data.pictures import read_picture

Array = NDArray[Any]

# A drawn face: a dot of its own colour (RGB) at each of the five points, on gray.
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]])


def place(scale: float, degrees: float, shift: tuple[float, float], points: Array = TEMPLATE) -> Array:
    turn = np.deg2rad(degrees)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return (points - 56) @ matrix.T + shift


def draw(faces: list[Array], height: int = 300, width: int = 400) -> Array:
    picture = np.full((height, width, 3), 90, np.uint8)
    for points in faces:
        radius = max(2, round(float(np.linalg.norm(points[0] - points[1])) / 7))
        for (x, y), colour in zip(points, COLOURS.tolist(), strict=True):
            cv2.circle(picture, (round(x * 16), round(y * 16)), radius * 16, colour, -1, cv2.LINE_AA, 4)
    return picture


def dots(picture: Array) -> Array:
    """The middles of the five colours, (5, 2)."""
    middles = []
    for colour in COLOURS:
        near = np.abs(picture.astype(int) - colour).sum(axis=2) < 60
        middles.append(np.argwhere(near)[:, ::-1].mean(axis=0))
    return np.array(middles)


class DotDetector:
    """Stands in for YuNet: finds a drawn face by its colours, wants BGR and the size beforehand, answers as it does."""

    def __init__(self, *more: list[float]) -> None:
        self.more, self.size = more, (0, 0)

    def setInputSize(self, size: tuple[int, int]) -> None:  # noqa: N802
        self.size = size

    def detect(self, bgr: Array) -> tuple[int, Array | None]:
        assert bgr.flags.c_contiguous and self.size == (bgr.shape[1], bgr.shape[0])
        found = [np.array(row, np.float32) for row in self.more]
        rgb = bgr[:, :, ::-1]
        if (np.abs(rgb.astype(int) - COLOURS[0]).sum(axis=2) < 60).any():
            points = dots(rgb)
            low, high = points.min(axis=0), points.max(axis=0)
            found.append(np.concatenate([low, high - low, points.ravel(), [0.9]]).astype(np.float32))
        return 1, np.stack(found) if found else None


def detector(*more: list[float], face: str = "largest") -> Detector:
    return Detector("model", face, make=lambda model, score: DotDetector(*more))


# ---- the transform


def naive_similarity(source: Array, target: Array) -> Array:
    """Least squares over a, b, x, y of (a u - b v + x, b u + a v + y), by NumPy's general solver."""
    rows = [row for u, v in source for row in ([u, -v, 1, 0], [v, u, 0, 1])]
    a, b, x, y = np.linalg.lstsq(np.array(rows), target.ravel(), rcond=None)[0]
    return np.array([[a, -b, x], [b, a, y]])


@pytest.mark.parametrize("seed", range(5))
def test_similarity_is_the_least_squares_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(5, 2)) * 40 + 300
    target = place(*rng.uniform(0.1, 3, 1), *rng.uniform(-180, 180, 1), (5, 9), source) + rng.normal(size=(5, 2)) * 4
    found = similarity(source, target)
    assert np.allclose(found, naive_similarity(source, target), rtol=1e-9, atol=1e-9)
    assert found[0, 0] == found[1, 1] and found[0, 1] == -found[1, 0]


@pytest.mark.parametrize("degrees", [0, 30, 90, 180, -135])
def test_similarity_undoes_what_was_done(degrees: float) -> None:
    found = similarity(place(2.5, degrees, (300, 170)), TEMPLATE)
    assert np.allclose(place(2.5, degrees, (300, 170)) @ found[:, :2].T + found[:, 2], TEMPLATE)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.full((5, 2), 30.0), "mirrored or on one line"),
        (np.full((5, 2), np.nan), "five points"),
        (np.full((5, 2), 1e200), "five points"),
        (TEMPLATE[:4], "five points"),
        (TEMPLATE * [-1, 1] + [112, 0], "mirrored"),
        (TEMPLATE[[1, 0, 2, 4, 3]], "mirrored"),
        (np.column_stack([np.arange(5.0), np.arange(5.0)]), "on one line"),
    ],
)
def test_points_of_no_face_are_refused(points: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        warp_face(np.zeros((9, 9, 3), np.uint8), points)


def test_similarity_of_one_place_is_refused() -> None:
    with pytest.raises(ValueError, match="coincide"):
        similarity(np.ones((5, 2)), TEMPLATE)
    with pytest.raises(ValueError, match="finite"):
        similarity(TEMPLATE * np.inf, TEMPLATE)


# ---- the warp


@pytest.mark.parametrize("side", [112, 160])
@pytest.mark.parametrize("degrees", [0, 25, -70, 180])
@pytest.mark.parametrize("scale", [0.8, 1.0, 1.9, 2.3, 4.6, 9.0])
def test_the_dots_of_a_drawn_face_come_to_the_template(scale: float, degrees: float, side: int) -> None:
    size = int(112 * scale * 1.5)
    points = place(scale, degrees, (size / 2 + 3, size / 2 - 2))
    face = warp_face(draw([points], size, size), points, side)
    assert face.shape == (side, side, 3) and face.dtype == np.uint8
    assert np.abs(dots(face) - TEMPLATE * side / 112).max() < 0.6


def test_a_shrunk_face_is_averaged_and_a_large_one_not_touched_twice() -> None:
    checks = (np.indices((1120, 1120)).sum(axis=0) % 2 * 255).astype(np.uint8)
    face = warp_face(np.repeat(checks[:, :, None], 3, axis=2), TEMPLATE * 10 + 4.5)
    assert np.abs(face.astype(int) - 127.5).max() <= 1
    picture = draw([TEMPLATE], 112, 112)
    assert np.array_equal(warp_face(picture, TEMPLATE), picture)


# ---- the detector


def test_the_largest_or_the_most_central_face() -> None:
    boxes = np.array([[0, 0, 50, 60], [180, 130, 30, 30], [300, 10, 40, 40]], float)
    assert choose_face(boxes, 400, 300, "largest") == 0
    assert choose_face(boxes, 400, 300, "central") == 1
    with pytest.raises(UserError, match="Did you mean 'central'"):
        choose_face(boxes, 400, 300, "centre")


def test_the_points_of_the_chosen_face_come_back() -> None:
    points = place(0.6, 10, (120, 100))
    corner = [320.0, 220, 79, 79, *(place(0.5, 0, (350, 250)).ravel()), 0.8]
    picture = draw([points])
    assert np.abs(detector(corner)((), picture) - place(0.5, 0, (350, 250))).max() < 1e-4
    assert np.abs(detector(corner, face="central")((), picture) - points).max() < 0.5
    with pytest.raises(ValueError, match="no face"):
        detector()((), draw([]))


def test_large_pictures_are_shrunk_for_the_detector_only() -> None:
    points = place(7, 20, (1000, 900))
    assert np.abs(detector()((), draw([points], 1801, 2003)) - points).max() < 2


class NoYuNet:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def setInputSize(self, size: tuple[int, int]) -> None:  # noqa: N802
        pass

    def detect(self, bgr: Array) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return 1, self.answer


@pytest.mark.parametrize("answer", [cv2.error("no such layer\nat all"), np.zeros((3, 4)), np.zeros(15)])
def test_a_model_of_another_kind_is_one_line(answer: Any) -> None:
    with pytest.raises(UserError, match=r"my\.onnx is not OpenCV's YuNet") as error:
        Detector("my.onnx", make=lambda model, score: NoYuNet(answer))
    assert "\n" not in str(error.value)


def test_opencv_itself_refuses_what_is_no_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for content in (b"", b"not a model", b"\x08\x07" + bytes(100)):
        (tmp_path / "a.onnx").write_bytes(content)
        arguments = [f"--data_dir={tmp_path / 'r'}", f"--output={tmp_path / 'o'}"]
        assert main([*arguments, f"--detector={tmp_path / 'a.onnx'}"]) == 2
        said = capfd.readouterr()
        assert "is not OpenCV's YuNet" in said.err and said.err.count("\n") == 1 and said.out == ""


# ---- folders


def save(path: Path, picture: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture[:, :, ::-1])


def folder(root: Path) -> Path:
    save(root / "Asian" / "p1" / "a.png", draw([place(1.2, 15, (200, 150))]))
    save(root / "Asian" / "p1" / "b.JPG", draw([place(0.9, -30, (150, 120))]))
    save(root / "Indian" / "p2" / "deep" / "c.bmp", draw([place(1.1, 60, (180, 150))]))
    save(root / "Indian" / "p2" / "empty.png", draw([]))
    (root / "Indian" / "p2" / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    return root


ALIGNED = ["Asian/p1/a.png", "Asian/p1/b.JPG", "Indian/p2/deep/c.bmp.png"]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_folder_keeps_its_layout_and_lists_what_is_left_out(tmp_path: Path, workers: int) -> None:
    root, output = folder(tmp_path / "in"), tmp_path / "out"
    done = align_folder(root, output, detector(), workers=workers)
    assert (done.aligned, done.before) == (3, 0)
    assert [path for path, _ in done.left_out] == ["Indian/p2/broken.jpg", "Indian/p2/empty.png"]
    assert (output / LEFT_OUT).read_text().splitlines()[1] == "Indian/p2/empty.png\tno face found"
    assert sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()) == sorted(
        [*ALIGNED, LEFT_OUT]
    )
    for name in ALIGNED:
        face = read_picture(output / name)
        assert face.shape == (112, 112, 3)
        assert np.abs(dots(face) - TEMPLATE).max() < 1.2


def test_a_second_run_goes_on_where_the_first_stopped(tmp_path: Path) -> None:
    root, output = folder(tmp_path / "in"), tmp_path / "out"
    calls = []

    def stops(names: tuple[str, ...], picture: Array) -> Array:
        calls.append(names)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return detector()(names, picture)

    with pytest.raises(KeyboardInterrupt):
        align_folder(root, output, stops, workers=0)
    kept = (output / ALIGNED[0]).stat().st_mtime_ns
    done = align_folder(root, output, detector(), workers=0)
    assert (done.aligned, done.before, len(done.left_out)) == (2, 1, 2)
    assert (output / ALIGNED[0]).stat().st_mtime_ns == kept
    (root / "Indian" / "p2" / "empty.png").unlink()
    (root / "Indian" / "p2" / "broken.jpg").unlink()
    assert align_folder(root, output, detector(), workers=0) == (0, 3, [])
    assert (output / LEFT_OUT).read_text() == ""


def landmarks(path: Path, rows: dict[str, Array], header: bool = True) -> Path:
    lines = ["path," + ",".join(f"{axis}{k}" for k in range(1, 6) for axis in "xy")] if header else []
    lines += [",".join([name, *(f"{number:.4f}" for number in points.ravel())]) for name, points in rows.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("header", [True, False])
def test_landmarks_of_a_csv_do_without_a_detector(
    tmp_path: Path, header: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    root, output = folder(tmp_path / "in"), tmp_path / "out"
    rows = {"Asian/p1/a.png": place(1.2, 15, (200, 150)), "./Asian/p1/b.JPG": place(0.9, -30, (150, 120))}
    path = landmarks(tmp_path / "points.csv", rows, header)
    assert main([f"--data_dir={root}", f"--output={output}", f"--landmarks={path}", "--size=128"]) == 0
    said = capsys.readouterr().out
    assert "2 pictures aligned, 0 were there, 3 left out" in said
    assert "Indian/p2/deep/c.bmp\tnot in the list of landmarks" in (output / LEFT_OUT).read_text()
    for name in ALIGNED[:2]:
        face = read_picture(output / name)
        assert face.shape == (128, 128, 3)
        assert np.abs(dots(face) - TEMPLATE * 128 / 112).max() < 1.2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,1,2\n", ":1: a row must have 11 columns"),
        ("path,x\na.jpg,1,2,3,4,5,6,7,8,9\n", ":2: a row must have 11"),
        ("a.jpg,1,2,3,4,5,6,7,8,9,x\n", ":1: the points must be ten numbers"),
        ("a.jpg,1,2,3,4,5,6,7,8,9,nan\n", ":1: the points must be finite"),
        ("a.jpg,1,2,3,4,5,6,7,8,9,10\n\n./a.jpg,1,2,3,4,5,6,7,8,9,10\n", ":3: a.jpg is there a second time"),
        ("path,x\n", "lists no landmarks"),
        ("", "lists no landmarks"),
        ('"a', "not a csv file"),
        ("\xff", "not a csv file"),
    ],
)
def test_malformed_landmarks_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(text, encoding="latin1")
    with pytest.raises(UserError, match=message) as error:
        read_landmarks(tmp_path / "x.csv")
    assert "x.csv" in str(error.value) and "\n" not in str(error.value)


# ---- the command line


def test_the_command_with_a_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(align, "_yunet", lambda model, score: DotDetector())
    root, output = folder(tmp_path / "in"), tmp_path / "out"
    (tmp_path / "yunet.onnx").write_bytes(b"")
    arguments = [f"--data_dir={root}", f"--output={output}", f"--detector={tmp_path / 'yunet.onnx'}"]
    assert main(arguments) == 0
    assert "3 pictures aligned, 0 were there, 2 left out" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "0 pictures aligned, 3 were there, 2 left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data_dir=IN", "--output=OUT"], "Give either --detector=face_detection_yunet_2023mar.onnx"),
        (["--data_dir=IN", "--output=OUT", "--detector=a", "--landmarks=b"], "Give either"),
        (["--data_dir=IN", "--output=OUT", "--detector=none.onnx"], "none.onnx is not a file"),
        (["--data_dir=IN", "--output=OUT", "--landmarks=none.csv"], "none.csv cannot be read"),
        (["--data_dir=IN", "--output=IN/below", "--landmarks=x"], "must not lie in each other"),
        (["--data_dir=IN/Asian", "--output=IN", "--landmarks=x"], "must not lie in each other"),
        (["--data_dir=IN", "--output=POINTS", "--landmarks=x"], "is a file; name a folder"),
        (["--data_dir=IN", "--output=OUT", "--landmark=x"], "Did you mean '--landmarks'?"),
        (["--data_dir=IN", "--output=OUT", "--landmarks=POINTS", "--size=1"], "--size must be at least 16"),
        (["--data_dir=IN", "--output=OUT", "--landmarks=POINTS", "--face=any"], "--face: invalid choice"),
        (["--data_dir=GONE", "--output=OUT", "--landmarks=POINTS"], "GONE does not exist"),
        (["--data_dir=IN", "--output=OUT", "--landmarks=POINTS"], "Not one picture of"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "IN" / "Asian" / "p1" / "a.png", draw([]))
    landmarks(tmp_path / "POINTS", {"other.png": TEMPLATE})
    for name in ("IN", "OUT", "POINTS", "GONE"):
        arguments = [argument.replace(f"={name}", f"={tmp_path / name}") for argument in arguments]
    assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()
    assert message in error[-1]
    assert len([line for line in error if line.startswith("python -m metric_learning.data.align:")]) == 1
