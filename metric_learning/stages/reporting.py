"""Where a report goes: a json, and its plot beside it."""

from pathlib import Path

from metric_learning.class_report import ClassReport
from metric_learning.report import Report


def write_report(report: Report | ClassReport, place: Path) -> None:
    report.write_json(place)
    plot = place.with_suffix(".png")
    plot.unlink(missing_ok=True)  # an older one must not stand beside newer figures
    drawn = report.write_plot(plot)
    print(f"Written: {place}{f' and {plot}' if drawn else ''}")
