"""What is not the person: background and clothes, things that cover the face, the light and the camera."""

from typing import Any

import cv2
import numpy as np

from metric_learning.data.faces.canvas import (
    FINE,
    SIDE,
    Canvas,
    Colour,
    Pixels,
    both_sides,
    curve,
    ellipse,
    lowered,
    stroke,
)
from metric_learning.data.faces.head import BLACK, SIDES, SKIN, WHITE, walk
from metric_learning.data.faces.people import Nuisance, Traits

FRAME = np.array([(30, 28, 32), (96, 52, 34), (140, 36, 44), (44, 72, 118), (170, 150, 110), (190, 192, 196)], float)
PLAIN = np.array((168.0, 178.0, 190.0))


def draw_background(rng: np.random.Generator, nuisance: Nuisance) -> Pixels:
    """A smooth field of a few colours with soft shapes before it, on the fine canvas."""
    side = SIDE * FINE
    field = rng.uniform(60, 210) + rng.normal(0, 22, 3) + rng.normal(0, 20, (3, 3, 3))
    field = np.clip(PLAIN + nuisance.scene * (field - PLAIN), 0, 255).astype(np.uint8)
    picture = cv2.resize(field, (64, 64), interpolation=cv2.INTER_CUBIC)
    count, places, colours = (
        int(rng.integers(0, 5)),
        rng.uniform(0, 64, (5, 4)),
        rng.uniform(50, 215, (5, 1)) + rng.normal(0, 25, (5, 3)),
    )
    shown = places[: round(count * nuisance.scene)].astype(int).tolist()
    for (x, y, a, b), colour in zip(shown, colours.tolist(), strict=False):
        if a > 32:
            cv2.rectangle(picture, (x - a // 4, y - b // 2), (x + a // 4, y + b // 2), colour, -1)
        else:
            cv2.circle(picture, (x, y), 4 + b // 5, colour, -1)
    blurred: Pixels = cv2.resize(cv2.GaussianBlur(picture, (0, 0), 1.8), (side, side))
    return blurred


def draw_cloth(rng: np.random.Generator, nuisance: Nuisance) -> Colour:
    """The colour of the clothes."""
    return PLAIN * 0.5 + nuisance.scene * (rng.uniform(25, 220, 3) - PLAIN * 0.5)


def cover(c: Canvas, rng: np.random.Generator, t: Traits, nuisance: Nuisance) -> None:
    """Perhaps a hat, perhaps one thing before the face; the same count of random numbers whatever is drawn."""
    hat, thing, kind = rng.random(3).tolist()
    colour, place = rng.uniform(20, 230, 3), rng.uniform(-1, 1, 3).tolist()
    if hat < nuisance.hat_chance:
        _hat(c, t, colour[::-1])
    if thing < nuisance.occlusion_chance:
        things = (_bar, _hand, _sunglasses, _scarf, _mask)
        things[int(kind * len(things))](c, t, colour, place)


def _hat(c: Canvas, t: Traits, colour: Colour) -> None:
    """A woollen hat down to the hairline."""
    w, brim, top = t["face_width"] + 0.07 + t["hair_side"], t["hairline"] + 0.12, 1.42 + 1.3 * t["hair_top"]
    dome = curve([(-w, brim), (-w * 0.95, 0.3 - top), (0.0, -top), (w * 0.95, 0.3 - top), (w, brim)])
    c.fill(np.concatenate([dome, curve([(w, brim), (0.0, brim - 0.1), (-w, brim)])]), colour, depth=0.15)
    band = curve([(-w * 1.02, brim), (-0.5 * w, brim - 0.06), (0.5 * w, brim - 0.06), (w * 1.02, brim)])
    c.fill(stroke(band, 0.24), colour * 0.78, depth=0.2)


def _bar(c: Canvas, t: Traits, colour: Colour, place: list[float]) -> None:
    """A straight edge of something between the camera and the face."""
    middle, turn = np.array((0.7 * place[0], 0.2 + 0.6 * place[1])), 1.6 * place[2]
    along = 2.2 * np.array((np.cos(turn), np.sin(turn)))
    line = np.array([middle - along, middle + along])
    c.fill(stroke(line, 0.34), colour, depth=1.0)
    c.fill(stroke(lowered(line, 0.1), 0.06), colour * 0.75, depth=1.0)


def _hand(c: Canvas, t: Traits, colour: Colour, place: list[float]) -> None:
    """Four fingers on a cheek or the chin."""
    side, y = (1.0 if place[0] > 0 else -1.0), 0.55 + 0.35 * place[1]
    skin = walk(SKIN, t["skin"]) * 0.95
    for finger in range(4):
        root = np.array((side * 1.25, y + 0.5 + 0.17 * finger))
        tip = np.array((side * (0.36 + 0.08 * abs(finger - 1)), y - 0.1 + 0.2 * finger))
        line = curve([root, 0.5 * (root + tip) - (0.0, 0.1), tip])
        for width, shade in ((0.235, 0.72), (0.19, 1.0)):
            c.fill(stroke(line, width), skin * shade, depth=0.9)
            c.fill(ellipse(tip[0], tip[1], width / 2, width / 2), skin * shade, depth=0.9)


def _sunglasses(c: Canvas, t: Traits, colour: Colour, place: list[float]) -> None:
    """Dark glasses in a frame of the day, not the person's own."""
    draw_glasses(c, dict(t, frame_round=abs(place[0]), frame_tone=abs(place[1]), frame_size=0.31), 0.92)


def _scarf(c: Canvas, t: Traits, colour: Colour, place: list[float]) -> None:
    """A scarf up to the lips or over them."""
    top = t["eye_y"] + t["nose_length"] + 0.28 + 0.14 * place[0]
    edge = curve([(-1.15, top - 0.1), (-0.5, top + 0.08), (0.0, top + 0.12), (0.5, top + 0.08), (1.15, top - 0.1)])
    c.fill(np.concatenate([edge, [(1.3, 2.1), (-1.3, 2.1)]]), colour, depth=0.45)
    for fold in (0.22, 0.45):
        c.wash(stroke(lowered(edge, fold), 0.07), colour * 0.7, 0.8, blur=1.0, depth=0.45)


def _mask(c: Canvas, t: Traits, colour: Colour, place: list[float]) -> None:
    """A cloth mask over nose and mouth."""
    top, low = t["eye_y"] + 0.62 * t["nose_length"], t["face_length"] - 0.02
    pale = 0.35 * colour + 0.65 * np.array((225.0, 232.0, 238.0))
    half = [(0.0, top - 0.06), (0.34, top + 0.02), (0.72, top + 0.12), (0.66, 0.8 * low), (0.3, low), (0.0, low + 0.02)]
    outline = curve([(-x, y) for x, y in half] + [(x, y) for x, y in half[-2:0:-1]], closed=True)
    for side in SIDES:
        c.fill(stroke(curve([(side * 0.7, top + 0.15), (side * 0.9, 0.2), (side * 1.0, 0.1)]), 0.03), pale * 0.9)
    c.fill(outline, pale, lift=0.08)
    for fold in (0.35, 0.6):
        y = top + fold * (low - top)
        c.wash(stroke(curve([(-0.6, y), (0.0, y + 0.04), (0.6, y)]), 0.03), pale * 0.75, 0.8, lift=0.08)


def draw_glasses(c: Canvas, t: Traits, lens: float) -> None:
    """Frames above the surface; lens 0 is clear glass, 1 is dark."""
    colour, size, thick = walk(FRAME, t["frame_tone"]), t["frame_size"], 0.035
    angle = np.arange(28) * (2 * np.pi / 28)
    power = 0.45 + 0.55 * t["frame_round"]  # a superellipse: 1 is round
    u = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    v = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
    x, y = max(t["eye_gap"], size + 0.07), t["eye_y"] + 0.03
    rim = np.stack([x + size * u, y + size * (0.68 + 0.25 * t["frame_round"]) * v], axis=1)
    c.wash(both_sides(rim), BLACK if lens else WHITE, max(lens, 0.12), lift=0.08)
    arm = np.array([(x + size, y - 0.05), (1.0, y - 0.06)])
    c.fill(both_sides(stroke(arm, thick)), colour, lift=0.03)
    gap = x - size
    bridge = curve([(-gap, t["eye_y"]), (0.0, t["eye_y"] - 0.04), (gap, t["eye_y"])])
    c.fill([*both_sides(stroke(np.concatenate([rim, rim[:1]]), thick)), stroke(bridge, thick)], colour, lift=0.08)


def expose(picture: Pixels, rng: np.random.Generator, nuisance: Nuisance) -> Pixels:
    """Light over the whole picture, then the camera: colour, contrast, blur and noise; (112, 112, 3) both ways."""
    z, u, n = np.clip(rng.standard_normal(6), -2.2, 2.2).tolist(), rng.random(4).tolist(), nuisance
    ramp = np.linspace(-1.0, 1.0, SIDE, dtype=np.float32)
    dx, dy = np.float32(np.cos(2 * np.pi * u[0])), np.float32(np.sin(2 * np.pi * u[0]))
    light = 1.0 + n.light * abs(z[0]) * (dx * ramp[None] + dy * ramp[:, None])
    curve_of_tone = np.clip(255 * (np.arange(256) / 255) ** np.exp(n.gamma * z[2]) + 0.5, 0, 255).astype(np.uint8)
    lit = cv2.transform(cv2.LUT(picture, curve_of_tone).astype(np.float32), _colours(n, z[1], z[3], z[4], z[5]))
    lit *= np.maximum(light, 0.15)[:, :, None]
    if u[1] < n.blur_chance:
        lit = cv2.GaussianBlur(lit, (0, 0), 0.5 + 1.0 * u[2])
    if n.noise:
        # Uniform noise from raw bytes (standard deviation 73.9) looks like normal noise and is far quicker to draw.
        grain = np.frombuffer(rng.bytes(lit.size), np.uint8).reshape(lit.shape)
        lit += (grain.astype(np.float32) - 127.5) * np.float32(2 * n.noise * u[3] / 73.9)
    photo: Pixels = np.clip(lit + 0.5, 0, 255).astype(np.uint8)
    return photo


def _colours(n: Nuisance, exposure: float, warmth: float, tint: float, saturation: float) -> Any:
    """The matrix (3, 3) from colours to colours: gains of the channels after a pull towards gray or away from it."""
    gain = np.exp(n.exposure * exposure + n.temperature * np.array((warmth, 0.4 * tint, -warmth)))
    keep = np.exp(n.saturation * saturation)
    return (gain[:, None] * (keep * np.eye(3) + (1 - keep) / 3)).astype(np.float32)
