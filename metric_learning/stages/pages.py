"""eval --report: where the page goes, and writing it."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from metric_learning.checks import UserError
from metric_learning.config import EvalOptions
from metric_learning.data.sources import PictureSet
from metric_learning.files import atomic_write
from metric_learning.page.material import Material
from metric_learning.page.writing import page_html
from metric_learning.runs import Run
from metric_learning.stages import setup


def checked_place(config: EvalOptions, classes: bool = False) -> Path | None:
    """Where the page goes, None without --report; a UserError, before any work, where none can be written.

    classes: the command is about classes.
    """
    if config.report is None:
        return None
    if classes:
        raise UserError("--report is about embeddings, and these weights are a classifier. Leave it out.")
    place = setup.output_file(config.report, None, "report.html")
    setup.check_writable(place.parent, "--report")
    return place


def write_page(place: Path, material: Material, run: Run | None) -> None:
    """run: what the weights are of; it has learning curves, and may have been trained on what is measured."""
    material = replace(material, made=time.strftime("%Y-%m-%d %H:%M"))
    if run is not None:
        measured = PictureSet([], np.empty(0, np.int64), list(material.classes), [])
        trained = setup.report_overlap(measured, run, lambda said: None)
        material = replace(material, run=run.folder, trained=trained)
    atomic_write(place, page_html(material))
    print(f"Written: {place}, a page to open in a browser.")
