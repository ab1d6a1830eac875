"""Open and write a run folder, rebuild its model."""

from buttress.runs.run import Run, open_run

__all__ = ["Run", "open_run"]
