"""How one picture is taken: pose, light, expression and which habits show; from the picture's stream."""

from dataclasses import dataclass

import numpy as np

from metric_learning.data.faces.canvas import CENTRE, FINE, HALF_WIDTH, Pose
from metric_learning.data.faces.people import Nuisance, Traits


@dataclass(frozen=True)
class Shot:
    """The conditions of one picture; lengths on the face are in half-widths of the head."""

    pose: Pose
    light: tuple[float, float]  # direction of the light times its strength, picture axes
    smile: float  # lifts the corners of the mouth
    mouth_open: float
    eyes_open: float  # 0 closed .. 1 as the person has them
    brow_raise: float
    frown: float
    gaze: tuple[float, float]
    hair_volume: float  # factor
    fringe: float  # added to the person's
    bearded: bool
    glasses: bool


def draw_shot(rng: np.random.Generator, traits: Traits, nuisance: Nuisance) -> Shot:
    """The conditions of a picture; always takes the same count of numbers from the stream."""
    z = np.clip(rng.standard_normal(18), -2.2, 2.2).tolist()
    u = rng.random(6).tolist()
    n, mood = nuisance, nuisance.expression
    pose = Pose(
        yaw=float(np.radians(n.yaw * z[0])),
        pitch=float(np.radians(n.pitch * z[1])),
        roll=float(np.radians(n.roll * z[2])),
        x=FINE * (CENTRE[0] + n.shift * z[3]),
        y=FINE * (CENTRE[1] + n.shift * z[4]),
        scale=FINE * HALF_WIDTH * float(np.exp(n.scale * z[5])),
    )
    closed = mood * (u[1] < 0.08)
    return Shot(
        pose=pose,
        light=(n.form * 0.9 * z[6], n.form * (0.35 * z[7] - 0.3)),
        smile=mood * (0.015 + 0.045 * z[8]),
        mouth_open=mood * max(0.0, 0.11 * z[9]) if u[0] < 0.6 else 0.0,
        eyes_open=(1.0 - closed) * float(np.exp(-mood * 0.16 * abs(z[10]))),
        brow_raise=mood * 0.035 * z[11],
        frown=mood * 0.02 * z[12],
        gaze=(mood * 0.03 * z[13], mood * 0.012 * z[14]),
        hair_volume=float(np.exp(n.hair * 0.12 * z[15])),
        fringe=n.hair * 0.10 * z[16],
        # With no nuisance the habit decides alone; with it the day does, more often as the habit says.
        bearded=_shows(traits["beard"] + 0.15, u[2], n.habit) or _shows(traits["moustache"] + 0.15, u[2], n.habit),
        glasses=_shows(traits["glasses"], u[3], n.habit),
    )


def _shows(habit: float, day: float, strength: float) -> bool:
    """Whether a habit (above 0: usual) shows on this day (0..1)."""
    return habit > 0 and day >= 0.25 * strength
