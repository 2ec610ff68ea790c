"""Pictures that a list names by their id: `<id>.jpg` or another picture's ending, somewhere below a folder."""

import os
from pathlib import Path

from metric_learning.checks import UserError, brief
from metric_learning.data.walk import PICTURE_EXTENSIONS, pictures_below


class PicturesById:
    """The pictures below `root` by their name without its ending, or with it where the id has one.

    Where several folders have a picture of that name (train/5.jpg, test/5.jpg), the one in a folder that is called as
    the list is (`prefer`: train.csv -> train) is meant.
    """

    def __init__(self, root: Path, prefer: str) -> None:
        self.root, self.prefer = root, prefer.lower()
        self._places: dict[str, list[str]] = {}
        for names in pictures_below(root):
            self._places.setdefault(os.path.splitext(names[-1])[0], []).append(os.path.join(*names))

    def find(self, ids: list[str], where: list[str], skip_missing: bool) -> list[str]:
        """For each id its picture, counted from root; '' where there is none and that may be. where: for errors."""
        return [self._one(name, place, skip_missing) for name, place in zip(ids, where, strict=True)]

    def _one(self, name: str, where: str, skip_missing: bool) -> str:
        stem, ending = os.path.splitext(name)
        full = ending.lower() in PICTURE_EXTENSIONS
        places = self._places.get(stem if full else name, [])
        if full:
            places = [place for place in places if os.path.basename(place) == name]
        if len(places) > 1:
            own = [place for place in places if self.prefer in Path(place).parent.as_posix().lower().split("/")]
            if len(own) != 1:
                raise UserError(
                    f"{where}: id {brief(name)} may be {places[0]} or {places[1]} in {self.root}. Give the list a "
                    "column `path` instead of `id`, or a narrower --data_dir."
                )
            return own[0]
        if not places and not skip_missing:
            raise UserError(
                f"{where}: there is no picture {brief(name if full else f'{name}.jpg')[1:-1]}"
                f"{'' if full else ' (or .png, ...)'} below {self.root}. "
                "Add it, drop the row, or type --skip_missing=True."
            )
        return places[0] if places else ""
