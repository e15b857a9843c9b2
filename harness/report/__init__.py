"""The report: one self-contained page from the store alone, the same bytes for the same store.

:mod:`~harness.report.analysis` turns the store into numbers, :mod:`~harness.report.words` numbers into
text, the ``sections`` into HTML and figures, and :mod:`~harness.report.page` puts a shell around them. No
dates, no paths and no versions of this machine get in; every random draw has a fixed seed.
"""

from harness.report.analysis import Analysis, analyse, flow
from harness.report.summary import summary_table
from harness.report.words import warnings
from harness.report.write import write_report

__all__ = ["Analysis", "analyse", "flow", "summary_table", "warnings", "write_report"]
