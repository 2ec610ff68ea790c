"""Hair and beard: a mass behind the head, a cap above the hairline with locks or curls, stubble to full beard."""

import numpy as np

from metric_learning.data.faces.canvas import (
    Canvas,
    Colour,
    Points,
    basis,
    both_sides,
    curve,
    ellipse,
    lowered,
    mirror,
    stroke,
    surface,
    taper,
)
from metric_learning.data.faces.head import Palette, face_outline, jaw_depth
from metric_learning.data.faces.people import Traits
from metric_learning.data.faces.shot import Shot


def _sizes(t: Traits, s: Shot) -> tuple[float, float, float]:
    """Height above the crown, thickness at the sides, and the y where the hair ends, in half-widths of the head."""
    top, side = t["hair_top"] * s.hair_volume * (1 + 0.5 * t["curl"]), t["hair_side"] * s.hair_volume
    return top, side + 0.05 * max(t["hair_length"], 0.0), 0.35 + 1.0 * t["hair_length"]


def draw_back(c: Canvas, t: Traits, s: Shot, p: Palette) -> None:
    """What hangs behind the head; cropped hair has nothing there."""
    top, side, end = _sizes(t, s)
    if t["hair_length"] < 0.15:
        return
    w = t["face_width"] + side
    half = [(0.0, -1.28 - top), (0.62 * w, -1.12 - 0.8 * top), (w * 1.02, -0.5), (w * 1.06, 0.2)]
    half += [(w * 1.02, end * 0.8), (w * 0.8, end)]
    outline = curve(mirror(half), closed=True)
    c.fill(outline, p.hair * 0.72, depth=-0.25)
    if t["curl"] > 0.5:
        _curls(c, outline[::2], t, p.hair * 0.72, depth=-0.25)


def _curls(c: Canvas, points: Points, t: Traits, colour: Colour, depth: float) -> None:
    """Round locks along an outline."""
    radius = 0.07 + 0.07 * t["curl"]
    c.fill([ellipse(x, y, radius, radius, samples=10) for x, y in points], colour, depth)


def _hairline(t: Traits, s: Shot, low: float) -> Points:
    """From the left sideburn over the forehead to the right one."""
    w, line, part = t["face_width"], t["hairline"], 0.35 * t["parting"]
    temple, fringe = t["forehead"] * w * 0.93, max(0.0, t["fringe"] + s.fringe * (t["fringe"] > 0))
    drop, back = fringe * 0.62, t["recede"]
    return curve(
        [
            (-w * 0.99, low),
            (-w * 0.94, -0.2),
            (-temple * 0.97, line + 0.28 - back * 0.5 + drop * 0.3),
            (-0.5, line + 0.03 - back + drop),
            (part, line - 0.04 + drop),
            (0.5, line + 0.03 - back + drop),
            (temple * 0.97, line + 0.28 - back * 0.5 + drop * 0.3),
            (w * 0.94, -0.2),
            (w * 0.99, low),
        ]
    )


def draw_cap(c: Canvas, t: Traits, s: Shot, p: Palette) -> None:
    """The hair above the hairline, then its texture: curls, or locks that run from the hairline to the outline."""
    top, side, end = _sizes(t, s)
    w, low = t["face_width"] + side, min(max(end, -0.05), 0.3)
    line = _hairline(t, s, low)
    if t["hair_top"] < 0.06 and t["hair_length"] < 0.2:  # shaved: the skin shines through
        shape = np.concatenate([line, _crown(0.97 * t["face_width"], -0.04, 0.0, low)[::-1]])
        c.wash(shape, p.hair, 0.72, blur=1.0, depth=np.concatenate([_rooted(line), np.zeros(len(line))]))
        return
    outer = _crown(w, top, 0.25 * t["parting"] * min(top, 0.2), low)
    depth = np.concatenate([_rooted(line), np.full(len(outer), -0.1)])
    c.fill(np.concatenate([line, outer[::-1]]), p.hair, depth)
    if t["curl"] > 0.5:
        _curls(c, outer[3:-3:2], t, p.hair, depth=-0.1)
        _dabs(c, line, outer, t, p)
    else:
        _locks(c, line, outer, t, p)


def _crown(w: float, top: float, lean: float, low: float) -> Points:
    """The outer edge of the hair from the left side over the crown to the right, as many points as a hairline has."""
    right = [(0.5 * w, -1.2 - 0.9 * top), (0.9 * w, -0.85 - 0.5 * top), (w * 1.01, -0.3), (w, low)]
    knots = np.array([(-x, y) for x, y in right[::-1]] + [(0.0, -1.31 - top)] + right)
    knots[3, 1] += lean
    knots[5, 1] -= lean
    return curve(knots)


def _rooted(line: Points) -> Points:
    """Depths (n,) of a hairline: on the surface in front, falling to nought where its two ends meet the face's edge."""
    depth: Points = surface(line) * np.sqrt(1 - (line[:, 0] / np.abs(line[:, 0]).max()) ** 4)
    return depth


def _between(line: Points, outer: Points, share: float) -> tuple[Points, Points]:
    """Points and depths part of the way from the hairline to the outline."""
    depth = _rooted(line)
    bulge = np.sin(np.pi * share) * 0.12
    return line + share * (outer - line), (1 - share) * depth - 0.1 * share + bulge


def _locks(c: Canvas, line: Points, outer: Points, t: Traits, p: Palette) -> None:
    """Strands, lighter and darker by turns; wavier with curl."""
    steps = [_between(line, outer, share) for share in (0.03, 0.3, 0.6, 0.9)]
    points, depths = np.stack([step[0] for step in steps]), np.stack([step[1] for step in steps])  # (4, n, 2), (4, n)
    room = np.minimum(np.hypot(*(outer - line).T) / 0.5, 1.0) ** 2
    sway = 0.25 * t["curl"] * np.array((0.0, 0.25, -0.25, 0.1)) + t["parting"] * np.array((0.0, 0.03, 0.1, 0.12))
    points[:, :, 0] += sway[:, None] * room
    # Short strands at the sides are left out: turned, they would leave the hair.
    roots = np.flatnonzero(room > 0.3)[1:-1:2]
    smooth = basis(4, False, 4)  # (13, 4)
    strands, along = np.einsum("sk,knx->nsx", smooth, points), (smooth @ depths).T  # (n, 13, 2), (n, 13)
    locks, depth = stroke(strands, 0.07 * taper(13)), np.concatenate([along, along[:, ::-1]], axis=1)
    for part, colour in ((roots[::2], p.hair * 1.25 + 14), (roots[1::2], p.hair * 0.7)):
        if len(part):
            c.wash(list(locks[part]), np.minimum(colour, 255), 0.5, depth=depth[part].ravel())


def _dabs(c: Canvas, line: Points, outer: Points, t: Traits, p: Palette) -> None:
    """Curls inside the cap."""
    radius = 0.05 + 0.04 * t["curl"]
    light: list[tuple[Points, float]] = []
    dark: list[tuple[Points, float]] = []
    for row, share in enumerate((0.25, 0.55, 0.85)):
        points, depth = _between(line, outer, share)
        for i in range(6 + row, len(line) - 6, 4):
            curl = ellipse(points[i, 0], points[i, 1], radius, radius, samples=10), float(depth[i])
            (light if (i + row) % 3 else dark).append(curl)
    for curls, colour in ((light, np.minimum(p.hair * 1.25 + 12, 255)), (dark, p.hair * 0.65)):
        if curls:
            c.wash([curl for curl, _ in curls], colour, 0.55, depth=np.repeat([z for _, z in curls], 10))


def draw_beard(c: Canvas, t: Traits, p: Palette) -> None:
    """Stubble to full beard, moustache, or both, as the person wears them."""
    if t["beard"] > -0.15:
        _beard(c, t, p)
    if t["moustache"] > -0.15:
        w, base = t["mouth_width"] * 1.08, t["eye_y"] + t["nose_length"]
        line = curve([(0.0, base + 0.1), (w * 0.55, base + 0.13), (w, base + t["mouth_gap"] + 0.01)])
        half = stroke(line, 0.11 * np.linspace(1.0, 0.35, len(line)))
        c.wash(both_sides(half), p.hair * 0.85, min(1.0, 0.6 + t["moustache"]), blur=1.0)


def _beard(c: Canvas, t: Traits, p: Palette) -> None:
    """From the face's lower outline up to an edge that passes over the mouth."""
    y, full = t["eye_y"] + t["nose_length"] + t["mouth_gap"], max(t["beard"], 0.0)
    outline, _ = face_outline(t)
    jaw = outline[outline[:, 1] > 0.18]
    jaw = jaw[np.argsort(np.arctan2(jaw[:, 1] - 0.2, jaw[:, 0]))]  # from the right ear to the left
    low = lowered(jaw * (0.985, 1.0), 0.12 * full)
    half = [(-0.72, 0.3), (-0.56, y - 0.05), (-0.3, y - 0.1)]
    edge = curve([*half, (0.0, y - 0.14), *((-x, v) for x, v in half[::-1])])
    depth = np.concatenate([jaw_depth(low), surface(edge)])
    c.wash(np.concatenate([low, edge]), p.hair * 0.85, min(1.0, 0.45 + 0.6 * full), blur=2.0, depth=depth)
