"""Bring a face to ArcFace's place by five points: one similarity transform, one warp."""

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Points = NDArray[np.float64]

# Where ArcFace's training pictures of 112 x 112 have them (insightface, arcface_torch): x, y of the eye on the left of
# the picture, the eye on its right, the nose's tip, the mouth's corner on the left, the one on the right.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
SIDE = 112


def similarity(source: Points, target: Points) -> Points:
    """The rotation, scale and shift (2, 3) that brings source (N, 2) nearest to target (N, 2): least sum of squares.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991, eq. 40..42,
    for the plane without a mirror: with points as complex numbers, centred, the factor is sum(conj(s) t) / sum(|s|^2).
    ValueError where the source points coincide or are not finite.
    """
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise ValueError("landmarks are not finite")
    s, t = source - source.mean(axis=0), target - target.mean(axis=0)
    size = (s * s).sum()
    if size < 1e-6:
        raise ValueError("landmarks coincide")
    a, b = (s * t).sum() / size, (s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum() / size
    turn = np.array([[a, -b], [b, a]])
    return np.column_stack([turn, target.mean(axis=0) - turn @ source.mean(axis=0)])


def warp_face(picture: Picture, points: Points, side: int = SIDE) -> Picture:
    """picture (H, W, 3) and its five points (5, 2) as x, y in pixels -> (side, side, 3) on the template, black outside.

    A face that shrinks to less than half is averaged first, by a whole number; InsightFace samples it only, with the
    jagged edges of that. ValueError where the points are no face: coincident, or left and right changed over.
    """
    check_points(points)
    template = TEMPLATE * side / SIDE
    matrix = similarity(points, template)
    shrink = int(1 / max(np.hypot(matrix[0, 0], matrix[1, 0]), 1e-6))
    if shrink > 1:
        height, width = picture.shape[:2]
        small = (max(1, width // shrink), max(1, height // shrink))
        picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        # Pixel k of OpenCV's grid is the square around k: centres, not corners, go with the resize.
        points = (points + 0.5) * (small[0] / width, small[1] / height) - 0.5
        matrix = similarity(points, template)
    face: Picture = cv2.warpAffine(picture, matrix, (side, side), flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0))
    return face


def check_points(points: Points) -> None:
    """ValueError unless left eye, right eye and mouth go round as in a picture; turned and upside down ones pass."""
    if points.shape != (5, 2) or not (np.abs(points) < 1e6).all():  # NaN is not below either
        raise ValueError("landmarks are not five points in pixels")
    eyes, mouth = points[1] - points[0], (points[3] + points[4]) / 2 - points[0]
    if eyes[0] * mouth[1] - eyes[1] * mouth[0] <= 0:
        raise ValueError(
            "landmarks are mirrored or on one line; their order is left eye (in the picture), right eye, ..."
        )
