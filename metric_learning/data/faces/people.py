"""Who the drawn people are and how each picture is taken: the numbers behind the embedded demo set.

A person is a set of traits that never change; a picture adds conditions (pose, light, expression, occlusion, ...).
Both come from Philox streams keyed by (seed, group, identity[, picture]), so they depend on nothing else: not on the
order of the calls, not on the process. Nothing about real people follows from the tables here.
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from metric_learning.checks import check_choice, check_range

GROUPS = ("African", "Asian", "Caucasian", "Indian")
MOST = 2**24 - 1  # people in a group, and pictures of a person: each has 24 bits of the key

Traits = dict[str, float]


class Spread(NamedTuple):
    """A trait's distribution over all people: a normal, clipped. Lengths are in half-widths of a head."""

    mean: float
    std: float
    low: float
    high: float


TRAITS = {
    # head; tones are 0 (light) .. 1 (dark)
    "skin": Spread(0.48, 0.23, 0.0, 1.0),
    "undertone": Spread(0.0, 0.5, -1.0, 1.0),
    "face_width": Spread(0.97, 0.07, 0.84, 1.1),
    "face_length": Spread(1.22, 0.1, 1.03, 1.42),
    "jaw": Spread(0.76, 0.1, 0.56, 0.94),
    "chin": Spread(0.34, 0.09, 0.16, 0.54),
    "forehead": Spread(0.88, 0.05, 0.76, 0.99),
    "ear_size": Spread(0.27, 0.05, 0.16, 0.38),
    "ear_out": Spread(0.06, 0.05, -0.03, 0.17),
    # eyes; iris is a walk along IRIS in canvas.py
    "eye_gap": Spread(0.42, 0.05, 0.32, 0.52),
    "eye_y": Spread(-0.02, 0.05, -0.12, 0.1),
    "eye_width": Spread(0.195, 0.025, 0.14, 0.25),
    "eye_height": Spread(0.098, 0.025, 0.055, 0.15),
    "eye_tilt": Spread(0.0, 0.022, -0.05, 0.05),
    "crease": Spread(0.5, 0.35, 0.0, 1.0),
    "lash": Spread(0.5, 0.3, 0.0, 1.0),
    "iris": Spread(0.30, 0.28, 0.0, 1.0),
    "iris_size": Spread(0.088, 0.01, 0.065, 0.11),
    # brows
    "brow_gap": Spread(0.225, 0.04, 0.14, 0.32),
    "brow_thick": Spread(0.055, 0.023, 0.018, 0.1),
    "brow_length": Spread(0.27, 0.035, 0.19, 0.34),
    "brow_arch": Spread(0.05, 0.03, -0.01, 0.12),
    "brow_tilt": Spread(-0.015, 0.03, -0.08, 0.08),
    # nose and mouth
    "nose_length": Spread(0.47, 0.065, 0.33, 0.6),
    "nose_width": Spread(0.185, 0.04, 0.11, 0.27),
    "nose_bridge": Spread(0.07, 0.02, 0.035, 0.12),
    "nose_tip": Spread(0.0, 0.03, -0.06, 0.06),
    "mouth_gap": Spread(0.28, 0.045, 0.18, 0.38),
    "mouth_width": Spread(0.31, 0.055, 0.2, 0.43),
    "upper_lip": Spread(0.065, 0.02, 0.025, 0.115),
    "lower_lip": Spread(0.085, 0.022, 0.035, 0.135),
    "lip_tone": Spread(0.5, 0.25, 0.0, 1.0),
    "smile": Spread(0.03, 0.02, -0.02, 0.06),
    # hair; hair is a walk along HAIR in canvas.py, length is how far it falls (-1 cropped .. 1.6 below the shoulders)
    "hair": Spread(0.30, 0.28, 0.0, 1.0),
    "gray": Spread(-0.6, 0.6, 0.0, 0.9),
    "curl": Spread(0.35, 0.3, 0.0, 1.0),
    "hair_top": Spread(0.17, 0.11, 0.02, 0.42),
    "hair_side": Spread(0.08, 0.08, 0.0, 0.28),
    "hair_length": Spread(0.35, 0.95, -0.7, 1.7),
    "hairline": Spread(-0.74, 0.1, -0.98, -0.52),
    "parting": Spread(0.0, 0.45, -0.8, 0.8),
    "fringe": Spread(-0.1, 0.35, 0.0, 0.7),
    "recede": Spread(0.05, 0.12, 0.0, 0.4),
    # below zero: none; the share of the pictures that show a beard or glasses is the person's habit
    "beard": Spread(-0.55, 0.6, -1.0, 1.0),
    "moustache": Spread(-0.65, 0.6, -1.0, 1.0),
    "glasses": Spread(-0.55, 0.7, -1.0, 1.0),
    "frame_round": Spread(0.5, 0.35, 0.0, 1.0),
    "frame_tone": Spread(0.4, 0.35, 0.0, 1.0),
    "frame_size": Spread(0.27, 0.03, 0.21, 0.33),
    "freckles": Spread(-0.5, 0.6, 0.0, 1.0),
    "age": Spread(0.15, 0.32, 0.0, 1.0),
    "blush": Spread(0.4, 0.25, 0.0, 1.0),
    "moles": Spread(0.5, 1.0, 0.0, 3.0),
    "mole_x": Spread(0.0, 0.4, -0.7, 0.7),
    "mole_y": Spread(0.35, 0.35, -0.5, 0.95),
}

# How far a group's mean lies from the mean of all, in standard deviations of the trait: below 1, and mostly 0.
SHIFTS: dict[str, Traits] = {
    "African": {"skin": 0.8, "hair": -0.5, "curl": 0.9, "iris": -0.5, "nose_width": 0.3, "lower_lip": 0.3},
    "Asian": {"skin": -0.3, "hair": -0.5, "curl": -0.5, "iris": -0.5, "crease": -0.5, "face_width": 0.2},
    "Caucasian": {"skin": -0.7, "hair": 0.8, "curl": -0.2, "iris": 0.8, "upper_lip": -0.2, "freckles": 0.3},
    "Indian": {"skin": 0.3, "hair": -0.5, "curl": -0.1, "iris": -0.5, "brow_thick": 0.3, "lash": 0.3},
}


@dataclass(frozen=True)
class Nuisance:
    """How much pictures of one person differ. Standard deviations, unless a field is named a chance (0..1).

    Every field at 0 gives the same picture each time but for the background and the clothes, which go with `scene`.
    """

    yaw: float = 12.0  # degrees
    pitch: float = 6.0
    roll: float = 5.0
    shift: float = 1.8  # pixels of 112
    scale: float = 0.04
    light: float = 0.20  # slope of the light over the picture
    form: float = 1.0  # strength of the shaded side of the face
    exposure: float = 0.12  # log gain
    gamma: float = 0.13  # log exponent
    temperature: float = 0.06  # log gain of red against blue
    saturation: float = 0.12
    expression: float = 1.0
    hair: float = 1.0  # volume and fringe from day to day
    habit: float = 1.0  # beard and glasses come and go
    occlusion_chance: float = 0.22
    hat_chance: float = 0.05
    blur_chance: float = 0.25
    noise: float = 4.0  # of 255; each picture draws its own level up to twice this
    scene: float = 1.0  # 0 a plain background and clothes, 1 as found

    @classmethod
    def none(cls) -> "Nuisance":
        """No nuisance at all: the person alone."""
        return cls(**{field.name: 0.0 for field in fields(cls)})


def stream(seed: int, group: str, identity: int, picture: int | None) -> np.random.Generator:
    """The random stream of one picture, or with picture None of the person; all four are in the key."""
    check_choice("The group", group, GROUPS)
    check_range("The seed", seed, 0, 2**63 - 1)
    check_range("The identity", identity, 0, MOST - 1)
    check_range("The picture", 0 if picture is None else picture, 0, MOST - 1)
    place = (GROUPS.index(group) << 48) | (identity << 24) | (MOST if picture is None else picture)
    return np.random.Generator(np.random.Philox(key=np.array([seed, place], dtype=np.uint64)))


@lru_cache(maxsize=1024)
def draw_traits(seed: int, group: str, identity: int, apart: float = 0.0) -> Traits:
    """The traits of one person, each within the bounds of TRAITS; kept, so they are not to be changed.

    apart in 0..1: how far the groups differ in what their people differ in. Every fourth trait of the table is a
    group's own: it varies by 1 + apart of its spread, the others by 1 - apart. At 0 all groups vary alike.
    """
    normal = stream(seed, group, identity, None).standard_normal(len(TRAITS)).tolist()
    shifts, first = SHIFTS[group], GROUPS.index(group) + 1
    spread = [1 + apart if (place - first) % len(GROUPS) == 0 else 1 - apart for place in range(len(TRAITS))]
    return {
        name: min(max(s.mean + s.std * (z * wide + shifts.get(name, 0.0)), s.low), s.high)
        for (name, s), z, wide in zip(TRAITS.items(), normal, spread, strict=True)
    }
