"""Draw the figures of a study and write its report page."""

from prunescope.report.drawing import Panel, draw_fates, draw_panel, draw_sensitivity, set_positions
from prunescope.report.figures import draw_figures
from prunescope.report.page import write_comparison_report, write_dissection_report, write_report

__all__ = [
    "Panel",
    "draw_fates",
    "draw_figures",
    "draw_panel",
    "draw_sensitivity",
    "set_positions",
    "write_comparison_report",
    "write_dissection_report",
    "write_report",
]
