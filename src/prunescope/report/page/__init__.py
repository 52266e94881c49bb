"""Write the page of a study: compact data files, and a page that draws them in the browser."""

from prunescope.report.page.comparison import write_comparison_report
from prunescope.report.page.dissections import write_dissection_report
from prunescope.report.page.write import write_report

__all__ = ["write_comparison_report", "write_dissection_report", "write_report"]
