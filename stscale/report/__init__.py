"""The report of a run: figures and one page that needs nothing else."""

from stscale.report.write import write_report

__all__ = ["write_report"]
