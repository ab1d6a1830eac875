"""What a model costs: size, arithmetic, memory and time."""

from buttress.metrics.cost.measure import Cost, Timing, measure_cost

__all__ = ["Cost", "Timing", "measure_cost"]
