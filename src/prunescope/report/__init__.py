"""Figures and pages: what a person looks at."""

from prunescope.report.figures import draw_figures
from prunescope.report.page import write_report

__all__ = ["draw_figures", "write_report"]
