"""A local page, and a JSON API beside it, to compare two pictures and to search a gallery by one.

This package is imported without Flask and waitress, its modules `app`, `guards`, `uploads` and `server` are not.
"""

from importlib.util import find_spec

from metric_learning.checks import UserError


def check_installed() -> None:
    """UserError unless the web library and the server are there."""
    missing = [name for name in ("flask", "waitress") if find_spec(name) is None]
    if missing:
        raise UserError(f"--serve needs {' and '.join(missing)}. Install by: pip install {' '.join(missing)}")
