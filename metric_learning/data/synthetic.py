"""The embedded demo set: drawings of people who do not exist, written once as JPEG files in race folders.

Nothing about real people follows from these pictures, nor from any score on them. docs/demo_faces.md tells how they are
made.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from metric_learning.checks import UserError, check_choice, check_range
from metric_learning.data.faces.canvas import Pixels
from metric_learning.data.faces.draw import draw_face
from metric_learning.data.faces.people import GROUPS, MOST

__all__ = ["GROUPS", "contact_sheet", "draw_face", "write_demo_faces"]

MANIFEST = "demo_faces.json"
VERSION = 1  # raise it whenever the drawings change, so that an older folder is not taken for a new one
QUALITY = 92  # of the JPEG files


def write_demo_faces(
    root: str,
    identities: int | Mapping[str, int] = 60,
    pictures: int = 10,
    seed: int = 0,
    progress: bool = True,
    apart: float = 0.0,
) -> str:
    """Write `<root>/<Group>/<Group>_<identity>/<picture>.jpg` unless it is there already; returns `root`.

    apart in 0..1: how far groups differ in what their people differ in (`draw_traits`); 0 is the demo set's.
    identities: how many people in each group, or a number for each group by name (0 or left out: none of that group).
    The folder appears whole or not at all: it is written beside `root` and renamed. Where two processes write at once,
    the first to finish wins and the other uses its folder. The files are the same to the byte for the same arguments
    and versions of OpenCV and NumPy (see draw_face).
    Raises UserError if an argument is out of range, if `root` holds anything else, or if it can't be written.
    """
    wanted = _describe(identities, pictures, seed, apart)
    if _finished(root, wanted):
        return root
    parent = os.path.dirname(os.path.abspath(root))
    try:
        os.makedirs(parent, exist_ok=True)
        partial = tempfile.mkdtemp(prefix=f".{os.path.basename(os.path.abspath(root))}.partial-", dir=parent)
    except OSError as error:
        raise UserError(f"The demo faces can't be written to {root}: {error}; give another folder.") from error
    try:
        _write_all(partial, wanted, progress)
        _publish(partial, root, wanted)
    except OSError as error:
        raise UserError(f"The demo faces can't be written to {root}: {error}; free space or give another.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # gone already if it was renamed
    return root


def contact_sheet(seed: int = 0, identities: int = 3, pictures: int = 6, side: int = 72) -> Pixels:
    """RGB (H, W, 3): a panel a group, two by two, each with a row a person and a column a picture of `side` pixels."""
    panels = []
    for group in GROUPS:
        title = np.full((20, pictures * side, 3), 255, np.uint8)
        cv2.putText(title, group, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
        rows = [
            np.concatenate([_reduced(draw_face(seed, group, person, p), side) for p in range(pictures)], axis=1)
            for person in range(identities)
        ]
        panels.append(np.concatenate([title, *rows]))
    gap = np.full((len(panels[0]), 8, 3), 255, np.uint8)
    upper, lower = (np.concatenate([panels[i], gap, panels[i + 1]], axis=1) for i in (0, 2))
    return np.concatenate([upper, lower])


def _reduced(picture: Pixels, side: int) -> Pixels:
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA))


def _describe(identities: int | Mapping[str, int], pictures: int, seed: int, apart: float) -> dict[str, Any]:
    """The manifest: the version and the arguments, checked; identities always as a number for each group."""
    check_range("The pictures of an identity of the demo faces", pictures, 1, MOST)
    check_range("The seed of the demo faces", seed, 0, 2**63 - 1)
    if isinstance(identities, Mapping):
        for group in identities:
            check_choice("A group of the demo faces", group, GROUPS)
        counts = {group: int(identities.get(group, 0)) for group in GROUPS}
    else:
        counts = dict.fromkeys(GROUPS, int(identities))
    for group, count in counts.items():
        check_range(f"The identities of group {group} of the demo faces", count, 0, MOST)
    check_range("The identities of the demo faces in all", sum(counts.values()), 1)
    check_range("apart of the demo faces", apart, 0, 1)
    said = {"version": VERSION, "identities": counts, "pictures": int(pictures), "seed": int(seed)}
    return said | ({"apart": float(apart)} if apart else {})


def _finished(root: str, wanted: dict[str, Any]) -> bool:
    """Whether `root` holds exactly the wanted pictures; False where there is nothing; a UserError for all else."""
    try:
        with open(os.path.join(root, MANIFEST), encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        if os.path.isdir(root) and not os.listdir(root):
            return False
        if os.path.lexists(root):
            raise UserError(f"{root} exists and is no demo set ({MANIFEST} is missing); give another folder.") from None
        return False
    except (OSError, ValueError) as error:
        raise UserError(f"{root} can't be used: {MANIFEST} can't be read ({error}); remove the folder.") from error
    if found != wanted:
        raise UserError(
            f"{root} holds demo faces made with {json.dumps(found)}, not {json.dumps(wanted)}; "
            "give another folder or remove this one."
        )
    expected = sum(wanted["identities"].values()) * wanted["pictures"]
    there = sum(name.endswith(".jpg") for _, _, names in os.walk(root) for name in names)
    if there != expected:
        raise UserError(f"{root} holds {there} of {expected} demo faces; remove the folder, and it is made anew.")
    return True


def _write_all(folder: str, wanted: dict[str, Any], progress: bool) -> None:
    """Draw and write every picture, then the manifest."""
    people = [(group, identity) for group, count in wanted["identities"].items() for identity in range(count)]
    width, pictures = max(3, len(str(max(wanted["identities"].values()) - 1))), wanted["pictures"]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # pictures this small only wait for more
    try:
        with tqdm(
            total=len(people) * pictures, desc="Drawing the demo faces", disable=None if progress else True
        ) as bar:
            for group, identity in people:
                home = os.path.join(folder, group, f"{group}_{identity:0{width}d}")
                os.makedirs(home)
                for picture in range(pictures):
                    rgb = draw_face(wanted["seed"], group, identity, picture, apart=wanted.get("apart", 0.0))
                    _write_picture(os.path.join(home, f"{picture:02d}.jpg"), rgb)
                bar.update(pictures)
    finally:
        cv2.setNumThreads(threads)
    with open(os.path.join(folder, MANIFEST), "w", encoding="utf-8") as file:
        json.dump(wanted, file, indent=1)


def _write_picture(path: str, rgb: Pixels) -> None:
    """Encode in memory and write: cv2.imwrite would say nothing of a full disk."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    with open(path, "wb") as file:
        file.write(encoded.tobytes())


def _publish(partial: str, root: str, wanted: dict[str, Any]) -> None:
    """Rename the finished folder; if another process was first, use that one's."""
    os.chmod(partial, 0o777 & ~_umask())  # mkdtemp gives 0700, and others may read this
    try:
        os.rename(partial, root)
    except OSError:
        if not _finished(root, wanted):
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
