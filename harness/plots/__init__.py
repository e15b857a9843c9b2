"""The report's figures, in one colour-blind-safe style, with units and n.

Each function draws what it is given and computes nothing but positions. :func:`png` and :func:`svg` give
the same bytes for the same figure.
"""

from harness.plots.curves import (
    CurvePanel,
    ThresholdPanel,
    learning_curves,
    speed_up_by_threshold,
    success_shares,
    times_by_threshold,
)
from harness.plots.dots import Dot, DotPanel, VarianceRow, comparability, levels, told_or_not, variance
from harness.plots.forest import BreakEvenRow, ForestRow, break_even, forest, sensitivity
from harness.plots.plane import DistancePoint, distance, transfer_matrix
from harness.plots.reach import (
    DosePanel,
    Line,
    Survival,
    SurvivalPanel,
    cumulative_steps,
    dose_curves,
    joint_profile,
    kaplan_meier,
    runtime_profile,
    selection,
)
from harness.plots.style import COLOURS, arm_label, looks, png, ratio_text, steps_text, style, svg

__all__ = [
    "COLOURS",
    "BreakEvenRow",
    "CurvePanel",
    "DistancePoint",
    "DosePanel",
    "Dot",
    "DotPanel",
    "ForestRow",
    "Line",
    "Survival",
    "SurvivalPanel",
    "ThresholdPanel",
    "VarianceRow",
    "arm_label",
    "break_even",
    "comparability",
    "cumulative_steps",
    "distance",
    "dose_curves",
    "forest",
    "joint_profile",
    "kaplan_meier",
    "learning_curves",
    "levels",
    "looks",
    "png",
    "ratio_text",
    "runtime_profile",
    "selection",
    "sensitivity",
    "speed_up_by_threshold",
    "steps_text",
    "style",
    "success_shares",
    "svg",
    "times_by_threshold",
    "told_or_not",
    "transfer_matrix",
    "variance",
]
