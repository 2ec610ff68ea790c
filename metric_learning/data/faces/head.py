"""The head: neck, ears, skin, nose, mouth, eyes and brows, each a function that draws on the canvas."""

from dataclasses import dataclass

import cv2
import numpy as np

from metric_learning.data.faces.canvas import (
    Canvas,
    Colour,
    Points,
    both_sides,
    curve,
    ellipse,
    lowered,
    mirror,
    soften,
    stroke,
    taper,
)
from metric_learning.data.faces.people import Traits
from metric_learning.data.faces.shot import Shot

# Walks from light to dark (skin) or through the colours (hair, iris), RGB.
SKIN = np.array([(250, 222, 200), (238, 197, 166), (217, 166, 128), (182, 127, 90), (136, 89, 62), (90, 58, 43)], float)
HAIR = np.array([(24, 20, 22), (48, 33, 28), (86, 56, 38), (138, 78, 42), (186, 136, 78), (226, 192, 128)], float)
IRIS = np.array([(52, 32, 22), (92, 58, 34), (122, 98, 52), (92, 122, 82), (82, 126, 160), (138, 152, 162)], float)
GRAY = np.array((176.0, 174.0, 172.0))
WHITE, BLACK = np.array((255.0, 253.0, 248.0)), np.array((14.0, 12.0, 14.0))
SIDES = (-1.0, 1.0)
FRECKLES = ((0.3, 0.3), (0.42, 0.36), (0.54, 0.3), (0.36, 0.45), (0.5, 0.44), (0.2, 0.38), (0.62, 0.4))


def walk(colours: Colour, t: float) -> Colour:
    """The colour at t in 0..1 along a walk."""
    at = t * (len(colours) - 1)
    low = min(int(at), len(colours) - 2)
    colour: Colour = colours[low] + (at - low) * (colours[low + 1] - colours[low])
    return colour


@dataclass(frozen=True)
class Palette:
    """One person's colours."""

    skin: Colour
    shade: Colour  # soft shadows on the skin
    line: Colour  # creases and lids
    lip: Colour
    hair: Colour
    iris: Colour

    @classmethod
    def of(cls, t: Traits) -> "Palette":
        """The colours that follow from the traits."""
        skin = np.clip(walk(SKIN, t["skin"]) + t["undertone"] * np.array((3.0, 0.0, -9.0)), 0, 255)
        red = np.array((176.0, 70.0, 72.0)) * (1.0 - 0.35 * t["skin"])
        return cls(
            skin=skin,
            shade=skin * (0.70, 0.61, 0.58),
            line=skin * (0.45, 0.36, 0.34),
            lip=skin * (0.86, 0.70, 0.68) * (1 - 0.6 * t["lip_tone"]) + red * 0.6 * t["lip_tone"],
            hair=walk(HAIR, t["hair"]) * (1 - t["gray"]) + GRAY * t["gray"],
            iris=walk(IRIS, t["iris"]),
        )


def face_outline(t: Traits) -> tuple[Points, Points]:
    """The face's outline (n, 2) and its depths (n,): the jaw lies before the ears, so it moves when the head turns."""
    w, long = t["face_width"], t["face_length"]
    half = [
        (0.0, -1.3),
        (0.55 * w, -1.16),
        (t["forehead"] * w, -0.68),
        (w, -0.05),
        (0.96 * w, 0.3),
        (t["jaw"] * w, 0.62 * long),
        (t["chin"] + 0.06, 0.93 * long),
        (0.45 * t["chin"], long),
    ]
    outline = curve(mirror(half), closed=True)
    return outline, jaw_depth(outline)


def jaw_depth(outline: Points) -> Points:
    """Depths (n,) of points on the face's outline: nought down to the ears, then forward to the chin."""
    rise = np.clip((outline[:, 1] - 0.2) / 0.9, 0.0, 1.0)
    depth: Points = 0.42 * rise * rise * (3 - 2 * rise)
    return depth


def draw_neck(c: Canvas, t: Traits, p: Palette, cloth: Colour) -> None:
    """Neck and shoulders; they don't turn with the head much, so they lie at its axis."""
    w = 0.52 + 0.2 * (t["jaw"] - 0.6)
    neck = mirror([(w, 0.5), (w, 1.3), (w + 0.08, 1.7), (w + 0.25, 2.6)])
    c.fill(neck, p.skin * (0.84, 0.79, 0.77), depth=-0.1)
    low = t["face_length"]
    below = curve([(-w + 0.04, 0.7), (-w + 0.04, low), (0.0, low + 0.2), (w - 0.04, low), (w - 0.04, 0.7)])
    c.wash(below, p.shade, 0.75, blur=2.0, depth=-0.05)
    shoulders = curve([(w - 0.02, 1.62), (w + 0.5, 1.78), (1.7, 2.02), (2.3, 2.9)])
    body = np.concatenate([shoulders, [(2.3, 3.4), (-2.3, 3.4)], shoulders[::-1] * SIDES[0] * (1, -1), [(0.0, 1.92)]])
    c.fill(body, cloth, depth=-0.1)
    collar = curve([(-w, 1.64), (0.0, 1.95), (w, 1.64)])
    c.fill(stroke(collar, 0.07), cloth * 0.75, depth=-0.1)


def draw_ears(c: Canvas, t: Traits, p: Palette) -> None:
    """Ears lie behind the face's outline, so the far one hides when the head turns."""
    for side in SIDES:
        size, x = t["ear_size"], side * (t["face_width"] + t["ear_out"])
        c.fill(ellipse(x, 0.2, 0.15, size, side * 0.15), p.skin * (0.93, 0.88, 0.86), depth=-0.12)
        c.fill(ellipse(x + side * 0.01, 0.19, 0.075, size * 0.62, side * 0.15), p.shade, depth=-0.12)


def draw_skin(c: Canvas, t: Traits, s: Shot, p: Palette) -> None:
    """The face, rounded by light: the gradient of its blurred mask is bright on one side and dark on the other."""
    outline, depth = face_outline(t)
    mask, box = c.mask(outline, depth)
    if mask is None:
        return
    high, wide = mask.shape
    padded = cv2.copyMakeBorder(mask, 32, 32, 32, 32, cv2.BORDER_CONSTANT)
    small = cv2.resize(padded, (wide // 4 + 17, high // 4 + 17))  # 8 more on each side, and never empty between them
    soft = soften(small, 6.0).astype(np.float32) / 255
    dx, dy = soft[8:-8, 9:-7] - soft[8:-8, 7:-9], soft[9:-7, 8:-8] - soft[7:-9, 8:-8]
    shading = 0.78 + 0.22 * soft[8:-8, 8:-8] + 2.1 * (s.light[0] * dx + s.light[1] * dy)
    skin = np.clip(shading, 0.55, 1.2)[:, :, None] * p.skin.astype(np.float32)
    tint = np.minimum(skin, 255).astype(np.uint8)
    c.put(cv2.resize(tint, (wide, high)), mask, box)


def draw_marks(c: Canvas, t: Traits, p: Palette) -> None:
    """Blush, freckles, moles and the lines of age."""
    rose = p.skin * (1.0, 0.72, 0.70)
    c.wash(both_sides(ellipse(0.52, 0.42, 0.24, 0.18)), rose, 0.15 + 0.4 * t["blush"], blur=5.0)
    fold = curve([(t["nose_width"] + 0.06, 0.42), (0.34, 0.58), (0.40, 0.78)])
    c.wash(both_sides(stroke(fold, 0.05 * taper(len(fold)))), p.line, 0.12 + 0.45 * t["age"])
    if t["freckles"] > 0:
        low = t["eye_y"] + 0.7 * t["nose_length"] - 0.33
        dots = [ellipse(side * x, y + low, 0.024, 0.024, samples=8) for side in SIDES for x, y in FRECKLES]
        c.wash(dots, p.line, 0.2 + 0.5 * t["freckles"])
    for row in range(round(2 * t["age"])):
        crease = curve([(-0.4, -0.52 - 0.12 * row), (0.0, -0.55 - 0.12 * row), (0.4, -0.52 - 0.12 * row)])
        c.wash(stroke(crease, 0.03 * taper(len(crease))), p.line, 0.35)
    for mole in range(int(t["moles"])):
        x, y = (t["mole_x"], t["mole_y"]) if mole == 0 else (-t["mole_y"] * 0.7, 0.3 + 0.8 * t["mole_x"])
        c.wash(ellipse(x, y, 0.034, 0.034, samples=12), p.line * 0.8, 0.9)


def draw_nose(c: Canvas, t: Traits, p: Palette) -> None:
    """The ridge lies above the head's surface, so it leans when the head turns."""
    base, w, bridge = t["eye_y"] + t["nose_length"], t["nose_width"], t["nose_bridge"]
    ridge = curve([(bridge, t["eye_y"] - 0.1), (bridge * 1.1, base * 0.6), (w * 0.75, base - 0.05)])
    c.wash(stroke(ridge, 0.07 * taper(len(ridge), 0.5, 0.8)), p.shade, 0.55, blur=2.0, lift=0.08)
    shine = curve([(0.0, t["eye_y"]), (0.0, base * 0.6), (0.0, base - 0.08)])
    c.wash(stroke(shine, bridge * 1.1), np.minimum(p.skin * 1.16 + 6, 255), 0.55, blur=2.0, lift=0.12)
    tip = t["nose_tip"]
    under = curve(
        [(-w, base - 0.04), (-w * 0.8, base + 0.05), (0.0, base + 0.07 + tip), (w * 0.8, base + 0.05), (w, base - 0.04)]
    )
    c.wash(stroke(under, 0.055 * taper(len(under))), p.line, 0.75, lift=0.06)
    c.wash(both_sides(ellipse(w * 0.5, base + 0.025 + 0.5 * tip, w * 0.24, 0.03)), p.line * 0.7, 0.85, lift=0.07)
    wing = curve([(w * 0.95, base - 0.12), (w * 1.12, base - 0.03), (w * 0.85, base + 0.05)])
    c.wash(both_sides(stroke(wing, 0.035 * taper(len(wing)))), p.line, 0.6, lift=0.02)


def draw_mouth(c: Canvas, t: Traits, s: Shot, p: Palette) -> None:
    """Two lips about a line whose corners follow the smile; an open mouth shows teeth and a dark inside."""
    y, w = t["eye_y"] + t["nose_length"] + t["mouth_gap"], t["mouth_width"] * (1.0 + 1.6 * s.smile)
    corner = y - t["smile"] - s.smile
    up, low, gap = t["upper_lip"], t["lower_lip"], s.mouth_open
    seam_up = [(-w, corner), (-w * 0.45, y - 0.008), (0.0, y + 0.012), (w * 0.45, y - 0.008), (w, corner)]
    seam_low = [(x, v + (gap if abs(x) < w * 0.9 else 0.0)) for x, v in seam_up]
    bow = [(w, corner), (w * 0.5, y - up * 0.85), (w * 0.16, y - up), (0.0, y - up * 0.75)]
    top = curve(bow + [(-x, v) for x, v in bow[-2::-1]])
    droop = [(w, corner), (w * 0.55, y + gap + low * 0.8), (0.0, y + gap + low)]
    bottom = curve(droop + [(-x, v) for x, v in droop[-2::-1]])
    inside = np.concatenate([curve(seam_up), curve(seam_low)[::-1]])
    c.fill(np.concatenate([curve(seam_up), top]), p.lip * 0.88)
    c.fill(np.concatenate([curve(seam_low), bottom]), np.minimum(p.lip * 1.06, 255))
    c.wash(ellipse(0.0, y + gap + low * 0.5, w * 0.35, low * 0.22), np.minimum(p.lip * 1.3 + 12, 255), 0.5, blur=1.0)
    if gap > 0.01:
        c.fill(inside, np.array((70.0, 28.0, 30.0)))
        teeth = [(x * 0.82, v + min(gap * 0.55, 0.09) * (abs(x) < w * 0.9)) for x, v in seam_up]
        c.fill(np.concatenate([curve(seam_up) * (0.82, 1.0), curve(teeth)[::-1]]), np.array((240.0, 236.0, 228.0)))
    seam = curve(seam_up)
    c.wash(stroke(seam, 0.032 * taper(len(seam), 0.7, 0.7)), p.line * (0.85, 0.6, 0.6), 0.9)
    below = curve([(-w * 0.5, y + gap + low + 0.06), (0.0, y + gap + low + 0.09), (w * 0.5, y + gap + low + 0.06)])
    c.wash(stroke(below, 0.06 * taper(len(below))), p.shade, 0.6, blur=1.5)


def _lids(t: Traits, s: Shot, side: float) -> tuple[Points, Points, Points]:
    """The line through an eye's corners, 5 knots, and what its upper and lower lids add to it."""
    x, y, w = side * t["eye_gap"], t["eye_y"], t["eye_width"]
    high = t["eye_height"] * s.eyes_open
    knots = np.array([(x + w * at, y - side * 2.0 * at * t["eye_tilt"]) for at in (-1.0, -0.55, 0.0, 0.55, 1.0)])
    up, down = np.zeros((5, 2)), np.zeros((5, 2))
    up[1:4, 1], down[1:4, 1] = np.multiply((-0.8, -1.0, -0.8), high), np.multiply((0.6, 0.72, 0.6), high)
    return knots, up, down


def draw_eyes(c: Canvas, t: Traits, s: Shot, p: Palette) -> None:
    """Almonds with white, iris and pupil inside, lids and lashes about them; both eyes at a time."""
    eyes = [_lids(t, s, side) for side in SIDES]
    upper, lower = [curve(k + up) for k, up, _ in eyes], [curve(k + down) for k, _, down in eyes]
    x, y = t["eye_gap"], t["eye_y"]
    c.wash(both_sides(ellipse(x, y - 0.02, t["eye_width"] * 1.3, 0.17)), p.shade, 0.45, blur=4.0)
    if t["eye_height"] * s.eyes_open > 0.03:
        _eyeballs(c, t, s, p, upper, lower)
    thick = (0.026 + 0.03 * t["lash"]) * taper(len(upper[0]), 0.5, 0.5)
    c.fill([stroke(lid, thick) for lid in upper], p.line * 0.45)
    c.wash([stroke(lid, 0.022 * taper(len(lid))) for lid in lower], p.line, 0.7)
    folds = [curve(lowered(k + 1.13 * up, -0.045)) for k, up, _ in eyes]
    c.wash([stroke(fold, 0.028 * taper(len(fold))) for fold in folds], p.line, 0.85 * t["crease"])
    bags = [curve(lowered((k + down)[1:4], 0.07)) for k, _, down in eyes]
    c.wash([stroke(bag, 0.03 * taper(len(bag))) for bag in bags], p.line, 0.1 + 0.4 * t["age"])


def _eyeballs(c: Canvas, t: Traits, s: Shot, p: Palette, upper: list[Points], lower: list[Points]) -> None:
    """What is seen between the lids: drawn whole on a copy, taken over inside the almonds only."""
    almonds = [np.concatenate([up, low[::-1]]) for up, low in zip(upper, lower, strict=True)]
    mask, box = c.mask(almonds)
    if mask is None:
        return
    inner, r = Canvas(c.pixels.copy(), c.pose), t["iris_size"]
    at = [(side * t["eye_gap"] + s.gaze[0], t["eye_y"] + s.gaze[1] - 0.01) for side in SIDES]
    inner.fill(almonds, WHITE * 0.93)
    inner.fill([ellipse(x, y, r, r) for x, y in at], p.iris * 0.55)
    inner.fill([ellipse(x, y, r * 0.82, r * 0.82) for x, y in at], p.iris)
    inner.fill([ellipse(x, y, r * 0.42, r * 0.42) for x, y in at], BLACK)
    inner.fill([ellipse(x + 0.03, y - 0.035, 0.024, 0.024, samples=8) for x, y in at], WHITE)
    inner.wash([stroke(lowered(lid, 0.015), 0.05) for lid in upper], p.line, 0.45)
    c.put(inner.pixels[box], mask, box)


def draw_brows(c: Canvas, t: Traits, s: Shot, p: Palette) -> None:
    """Tapered strokes above the eyes."""
    y, half, tilt = t["eye_y"] - t["brow_gap"] - s.brow_raise, 0.5 * t["brow_length"] + 0.03, t["brow_tilt"]
    inner, middle, outer = t["eye_gap"] - half, t["eye_gap"] + 0.2 * half, t["eye_gap"] + half
    line = curve([(inner, y + s.frown + tilt), (middle, y - t["brow_arch"]), (outer, y + 0.05 - tilt)], each=8)
    width = t["brow_thick"] * 1.7 * np.linspace(1.0, 0.35, len(line))
    width[0] *= 0.6
    c.wash(both_sides(stroke(line, width)), p.hair * 0.75, 0.92)
