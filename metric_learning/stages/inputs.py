"""The pictures that --input names."""

from pathlib import Path

from metric_learning.checks import UserError
from metric_learning.data.lists import read_csv
from metric_learning.data.walk import pictures_below
from metric_learning.stages.scoring import check_picture

LISTS = (".txt", ".lst", ".list")


def pictures_of_input(typed: str) -> list[str]:
    """Those of a folder, a csv or a list, one path a line, or one picture."""
    place = Path(typed)
    if place.is_dir():
        return [str(place.joinpath(*names)) for names in pictures_below(place)]
    if not place.is_file():
        raise UserError(f"--input={place}: no such file or folder.")
    if place.suffix.lower() == ".csv":
        return [sample.path for samples in read_csv(place).values() for sample in samples]
    if place.suffix.lower() not in LISTS:
        check_picture(typed)
        return [typed]
    return pictures_of_list(place, "--input")


def pictures_of_list(place: Path, option: str) -> list[str]:
    """The paths of a list, one a line, from the folder that it lies in."""
    try:
        lines = place.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UserError(f"Can't read {option}={place}: {error.strerror}.") from error
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise UserError(
                f"{option}={place}:{number}: no path holds a zero byte; save the list as UTF-8, a path a line."
            )
    listed = [str(place.parent / line.strip()) for line in lines if line.strip()]
    if not listed:
        raise UserError(f"{option}={place}: the list is empty; it takes one path a line.")
    return listed
