"""Scales, ticks and elements of the drawings; the palette for every kind of eye."""

import itertools
import math
import re
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import ImageFont

from metric_learning.page import svg

STYLE = (files("metric_learning.page") / "style.css").read_text()
# Machado, Oliveira and Fernandes, 2009, severity 1, for linear RGB.
SEES = {
    "all colours": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def palettes() -> dict[str, dict[str, str]]:
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")[:2]
    found = {
        name: dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part)) for name, part in (("light", light), ("dark", dark))
    }
    assert found["light"].keys() == found["dark"].keys()
    return found


def linear(colour: str) -> np.ndarray:
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    a, b = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (b + 0.05) / (a + 0.05)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Björn Ottosson's perceptual space: distances of 0.02 are just seen."""
    cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    cones.append([0.0883024619, 0.2817188376, 0.6299787005])
    lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]]
    lab.append([0.0259040371, 0.7827717662, -0.8086757660])
    return np.array(lab) @ np.cbrt(np.array(cones) @ np.clip(rgb, 0, 1))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("eyes", SEES)
def test_series_are_told_apart_by_every_kind_of_eye(scheme, eyes):
    colours = palettes()[scheme]
    names = ["gray", *(f"s{i}" for i in range(svg.SERIES))]
    seen = [oklab(np.array(SEES[eyes]) @ linear(colours[name])) for name in names]
    closest = min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2))
    assert closest > 0.08, closest


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_drawn_and_written_stands_out(scheme):
    colours = palettes()[scheme]
    for ground in ("card", "paper"):
        for name in ("ink", "soft", "link", "right", "wrong"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for name in ("gray", "focus", *(f"s{i}" for i in range(svg.SERIES))):
        assert contrast(colours[name], colours["card"]) >= 3.0, name


def test_series_differ_in_dashes_and_markers_too():
    assert len(set(svg.DASHES)) == len(set(svg.MARKERS)) == len(svg.DASHES) == len(svg.MARKERS) == svg.SERIES
    drawn = [str(svg.marker(i, 50, 50)) for i in range(svg.SERIES)]
    assert len({re.sub(r'class="[^"]*"', "", one) for one in drawn}) == svg.SERIES


@pytest.mark.parametrize("name", ["Asian", "Middle Eastern", "Southeast Asian", "Latino_Hispanic", "W" * 30, "i" * 70])
def test_a_name_fits_into_its_room_in_a_wide_font(name):
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), 10 * svg.SIZE)
    shown = svg.fitted(name, 120)
    assert font.getlength(shown) / 10 <= 120 and (shown == name or "…" in shown)
    assert len(name) > 14 or shown == name  # no more is cut off than must be
    assert svg.fitted("", 120) == "" and svg.fitted("漢" * 9, 120) == "漢漢漢漢…漢漢漢"
    assert f".chart text {{ font-size: {svg.SIZE}px" in STYLE


def test_elements_are_escaped_and_well_formed():
    said = svg.drawing("n", "a<b>", 'x"&', svg.text("<i>", 1, 2), svg.curve(7, [1, 2], [3, 4], True))
    root = ElementTree.fromstring(str(said))
    assert root.find("title").text == "a<b>" and root.find("desc").text == 'x"&' and root.find("text").text == "<i>"
    assert str(svg.element("a", b=None, c_d=1.0, e_=0.126)) == '<a c-d="1" e="0.13"></a>'


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 100), (60, 100), (-0.34, 0.98), (0, 3e6), (1e-5, 2e-5)])
def test_linear_ticks_are_round_and_inside(low, high):
    ticks = svg.linear_ticks(low, high)
    assert 2 <= len(ticks) <= 7 and low <= ticks[0] and ticks[-1] <= high
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0])
    assert round(steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9), 6) in (1, 2, 2.5, 5)


def test_log_ticks_are_powers_of_ten():
    assert svg.log_ticks(1e-4, 1) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])
    assert svg.log_ticks(1, 100) == pytest.approx([1, 2, 5, 10, 20, 50, 100])
    assert svg.log_ticks(3e-7, 1) == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1])
    assert len(svg.log_ticks(1e-12, 1)) <= 7


def test_a_frame_puts_values_where_they_belong():
    frame = svg.Frame(svg.Axis("x", 1e-3, 1.0, log=True), svg.Axis("y", 0.0, 100.0))
    assert frame.at_x(1e-3) == svg.LEFT and frame.at_x(1.0) == svg.WIDTH - svg.RIGHT
    assert frame.at_x(10**-1.5) == pytest.approx((svg.LEFT + svg.WIDTH - svg.RIGHT) / 2)
    assert frame.at_y(0.0) == frame.bottom and frame.at_y(100.0) == frame.top and frame.at_y(1e9) == frame.top
    assert svg.Axis("x", 2.0, 2.0).share(2.0) == 0.5
