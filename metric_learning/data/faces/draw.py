"""`draw_face`: one picture of one person."""

import cv2

from metric_learning.data.faces import hair, head, scene
from metric_learning.data.faces.canvas import SIDE, Canvas, Pixels
from metric_learning.data.faces.people import Nuisance, draw_traits, stream
from metric_learning.data.faces.shot import draw_shot

NUISANCE = Nuisance()


def draw_face(
    seed: int, group: str, identity: int, picture: int, nuisance: Nuisance = NUISANCE, apart: float = 0.0
) -> Pixels:
    """A picture of a person who does not exist: uint8 (112, 112, 3), RGB.

    It is a function of its arguments alone: neither order nor process matters. Within one version of OpenCV and of
    NumPy, on one kind of processor, the pixels are the same to the bit; other versions may round differently.
    apart: as in draw_traits. Raises UserError where the group is not one of GROUPS or a number is negative.
    """
    traits = draw_traits(seed, group, identity, apart)
    rng = stream(seed, group, identity, picture)
    shot = draw_shot(rng, traits, nuisance)
    palette = head.Palette.of(traits)
    c = Canvas(scene.draw_background(rng, nuisance), shot.pose)
    hair.draw_back(c, traits, shot, palette)
    head.draw_neck(c, traits, palette, scene.draw_cloth(rng, nuisance))
    head.draw_ears(c, traits, palette)
    head.draw_skin(c, traits, shot, palette)
    head.draw_marks(c, traits, palette)
    if shot.bearded:
        hair.draw_beard(c, traits, palette)
    head.draw_mouth(c, traits, shot, palette)
    head.draw_eyes(c, traits, shot, palette)
    head.draw_brows(c, traits, shot, palette)
    head.draw_nose(c, traits, palette)
    hair.draw_cap(c, traits, shot, palette)
    if shot.glasses:
        scene.draw_glasses(c, traits, 0.0)
    scene.cover(c, rng, traits, nuisance)
    small: Pixels = cv2.resize(c.pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return scene.expose(small, rng, nuisance)
