"""Sheets: where pictures and captions stand, what can't be read, names of any characters."""

import io

import numpy as np
import pytest
from PIL import Image

from metric_learning import fonts
from metric_learning.checks import UserError
from metric_learning.sheets import GAP, LINE, SIDE, Cell, in_rows, picture_sheet


def drawn(rows, **changed) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture_sheet(rows, **changed))).convert("RGB")).astype(int)


def plain(path, colour=(200, 0, 0), size=(40, 20)) -> str:
    Image.new("RGB", size, colour).save(path)
    return str(path)


def square(sheet: np.ndarray, row: int, column: int, lines: int) -> np.ndarray:
    top, left = GAP + row * (SIDE + lines * LINE + GAP), GAP + column * (SIDE + GAP)
    return sheet[top : top + SIDE, left : left + SIDE]


def test_aspect_is_kept_and_cells_lie_in_a_grid(tmp_path):
    wide, tall = plain(tmp_path / "w.png"), plain(tmp_path / "t.png", (0, 0, 200), (10, 1000))
    sheet = drawn([[Cell(wide), Cell(None)], [Cell(None), Cell(tall)]])
    assert sheet.shape == (2 * (SIDE + GAP) + GAP, 2 * (SIDE + GAP) + GAP, 3)
    red = np.argwhere((square(sheet, 0, 0, 0) == [200, 0, 0]).all(axis=2))
    assert red.min(axis=0).tolist() == [28, 0] and red.max(axis=0).tolist() == [83, 111]
    assert (square(sheet, 0, 1, 0) == 255).all() and (square(sheet, 1, 0, 0) == 255).all()
    blue = np.argwhere((square(sheet, 1, 1, 0) == [0, 0, 200]).all(axis=2))
    assert blue[:, 0].min() == 0 and blue[:, 0].max() == 111 and len(np.unique(blue[:, 1])) == 1


def test_captions_are_below_the_pictures_and_stay_in_their_cells(tmp_path):
    path = plain(tmp_path / "a.png", (255, 255, 255))
    sheet = drawn([[Cell(path, ("x" * 10_000, "labelled 0")), Cell(path)]])
    assert sheet.shape[0] == SIDE + 2 * LINE + 2 * GAP
    ink = np.argwhere(sheet.min(axis=2) < 128)
    assert ink[:, 0].min() > GAP + SIDE and ink[:, 1].min() >= GAP and ink[:, 1].max() <= GAP + SIDE


@pytest.mark.parametrize(
    "name",
    ["$x_1$", "_", "\\frac{", "näme Имя", "名前", "\udcff\udc80.jpg", "a\nb\r\tc\x00", "", "\u2028", "😀", "e\u0301"],
)
def test_names_of_any_characters(name):
    one, none = drawn([[Cell(None, (name,))]]), drawn([[Cell(None, ("",))]])
    assert one.shape == none.shape
    assert (one != none).any() == bool(name)


def test_wide_letters_come_from_a_font_of_the_system():
    if not fonts.eastern():
        pytest.skip("no font with Chinese letters")
    assert len({picture_sheet([[Cell(None, (name,))]]) for name in ("男", "女", "한", "a 男")}) == 4  # boxes look alike


def test_what_can_not_be_read_says_so(tmp_path):
    (tmp_path / "no.jpg").write_bytes(b"nothing")
    for path in (tmp_path / "no.jpg", tmp_path / "missing.jpg"):
        sheet = square(drawn([[Cell(str(path), ("a",))]]), 0, 0, 1)
        assert (sheet[0, 0] == 0xE4).all() and sheet.min() < 100


def test_no_more_rows_than_asked_for(tmp_path):
    rows = [[Cell(None, ("a",))]] * 9
    assert drawn(rows, most=4).shape == drawn(rows[:4]).shape
    assert len(in_rows([Cell(None)] * 17, 8)) == 3 and len(in_rows([Cell(None)] * 17, 8)[-1]) == 1


@pytest.mark.parametrize(
    ("rows", "changed", "said"),
    [
        ([], {}, "there is none"),
        ([[]], {}, "there is none"),
        ([[Cell(None)]], {"side": 0}, "side must be at least 16"),
        ([[Cell(None)]], {"most": 0}, "most must be at least 1"),
    ],
)
def test_nothing_to_draw_is_refused(rows, changed, said):
    with pytest.raises(UserError, match=said):
        picture_sheet(rows, **changed)
