"""Draw the figures of a study and write its report page."""

from prunescope.report.figures import draw_figures
from prunescope.report.page import write_report

__all__ = ["draw_figures", "write_report"]
