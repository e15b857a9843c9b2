"""Figures of made-up numbers in the easy and the hard cases, for the tests and to look at."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from harness import plots, statistics
from harness.statistics import Band, Estimate

BUDGET = 1_000_000.0
STEPS = np.array([0, *np.geomspace(1000, BUDGET, 17).round(-2), 1.06e6, 1.12e6])
THETA = np.round(np.arange(0.10, 0.801, 0.05), 2)
ARMS = ("scratch", "transfer", "blind", "single_source", "normalizer", "shuffled", "ceiling")
LONG = (
    "heavy-torso-with-short-and-stiff-legs",
    "giant <b>&$x_1$",
    "long-shins",
    "octopus with seven of its eight arms, the longest twice as long",
    "ice",
    "nominal",
    "a_name_without_any_place_to_break_it_in_two",
    "run-backwards-on-one-foot",
)
NONE = Estimate(math.nan, reason="not estimable: no run reaches any threshold")


def rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def ratio(value: float, spread: float = 0.3) -> Estimate:
    return Estimate(value, value * math.exp(-spread), value * math.exp(spread))


def rows(tasks: int, arms: int) -> list[plots.ForestRow]:
    found = []
    marks = ("", "solved at step 0", "", "negative transfer", "", "solved at step 0, negative transfer")
    for k in range(tasks):
        for a, arm in enumerate(ARMS[1 : arms + 1]):
            value = math.exp(rng(k, a).normal(0.4, 0.7))
            e = ratio(value, 0.2 + 0.1 * k)
            limit = "at least" if k % 3 == 1 else "at most" if k == 3 else ""
            text = f"{'≥ ' * (limit == 'at least')}{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]"
            mark = marks[k % 6] if a == 0 else ""
            found.append(plots.ForestRow(LONG[k], e, (10, 10), text, mark, arm=arm, limit=limit))
    for a, arm in enumerate(ARMS[1 : arms + 1]):
        e = ratio(1.6 + 0.1 * a, 0.15)
        text = f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]"
        found.append(plots.ForestRow("mean of all folds", e, (tasks,), text, suite=True, arm=arm))
    return found


def hard_rows() -> list[plots.ForestRow]:
    return [
        plots.ForestRow(LONG[0], NONE, (2, 2), "not estimable"),
        plots.ForestRow(LONG[1], Estimate(3.0, reason="one seed"), (1, 1), "3.00 (without interval)"),
        plots.ForestRow(LONG[3], Estimate(30.0, 1e-3, 1e6), (2, 2), "30 [0.001, 1e6]", "solved at step 0"),
        plots.ForestRow(LONG[6], Estimate(0.02, reason="constant"), (2, 2), "0.02", "negative transfer"),
        plots.ForestRow("mean of all folds", NONE, (0,), "no task is estimable", suite=True),
    ]  # fmt: skip


def dose_rows() -> list[plots.ForestRow]:
    return [
        plots.ForestRow(LONG[0], ratio(1 + 0.3 * i), (3, 3), "1.0 [0.8, 1.2]", arm=f"sources={i}")
        for i in (1, 2, 4, 7)
    ]


def curves(arm: int, runs: int, task: int, plateau: float = 0.95) -> np.ndarray:
    noise = rng(arm, task)
    speed = 120_000 / (1 + arm) * noise.lognormal(0, 0.3, (runs, 1))
    return plateau * (1 - np.exp(-STEPS / speed)) + noise.normal(0, 0.03, (runs, len(STEPS)))


def curve_panels(tasks: int, arms: int, runs: int) -> list[plots.CurvePanel]:
    panels = []
    for k in range(tasks):
        seeds = {arm: curves(a, runs, k, 0.0 if k == 4 else 0.95) for a, arm in enumerate(ARMS[:arms])}
        bands = {arm: statistics.curve_band(s, rng(1), resamples=50) for arm, s in seeds.items()}
        n = "+".join([str(runs)] * min(arms, 2))
        panels.append(plots.CurvePanel(f"{LONG[k]} (n = {n})", bands, seeds))
    if tasks > 1:
        suite = {
            arm: statistics.mean_band([p.seeds[arm] for p in panels], rng(2), resamples=50)
            for arm in ARMS[:arms]
        }
        panels.append(plots.CurvePanel(f"mean of {tasks} tasks", suite, {}))
    return panels


def one_checkpoint() -> list[plots.CurvePanel]:
    score = np.full((2, len(STEPS)), np.nan)
    score[:, :2] = [[0.0, 0.1], [0.02, 0.2]]
    nothing = np.full(len(STEPS), np.nan)
    band = Band(score.mean(axis=0), nothing, nothing, nothing, nothing, nothing, 2)
    return [plots.CurvePanel("only the first checkpoint", {"scratch": band}, {"scratch": score})]


def threshold_panels(tasks: int, arms: int, kind: str) -> list[plots.ThresholdPanel]:
    panels = []
    for k in range(tasks):
        values, low, high, censored = {}, {}, {}, {}
        for a, arm in enumerate(ARMS[:arms]):
            if kind == "share":
                share = np.clip(1.3 - THETA * (1.2 - 0.1 * a) - 0.05 * k, 0, 1).round(1)
                values[arm] = share
                ends = np.array([statistics.wilson(s, 10) for s in share])
                low[arm], high[arm] = ends.T
            else:
                time = np.minimum(np.exp(THETA * 6 + 7.5 - 0.3 * a + 0.1 * k), BUDGET)
                values[arm], low[arm], high[arm] = time, time / 1.3, np.minimum(time * 1.3, BUDGET)
                censored[arm] = time >= BUDGET / 3
        panels.append(plots.ThresholdPanel(f"{LONG[k]} (n = 10+10)", values, low, high, censored))
    return panels


def by_threshold(tasks: int, nan: bool = False) -> Figure:
    lines = {LONG[k]: np.exp(0.5 + 0.3 * np.sin(k + 4 * THETA)) for k in range(tasks)}
    if nan:
        lines = {name: np.full(len(THETA), np.nan) for name in lines}
    counts = [0 if nan else tasks - (i > 10) for i in range(len(THETA))]
    suite = [NONE if nan else ratio(1.6, 0.1) for _ in THETA]
    return plots.speed_up_by_threshold(lines, suite, THETA, counts, note="n = 10+10 in each task")


def reach_lines(names: tuple[str, ...], end: float, never: bool = False) -> list[plots.Line]:
    x = np.geomspace(end / 1000, end, 18)
    lines = []
    for a, name in enumerate(names):
        y = np.zeros(18) if never else (0.93 - 0.03 * a) * (1 - np.exp(-x / end * (3 + 3 * a)))
        lines.append(
            plots.Line(name, x, y, np.clip(y - 0.05, 0, 1), np.clip(y + 0.05, 0, 1), "10 × 8 tasks")
        )
    return lines


def survival_panels(tasks: int, arms: int, runs: int, never: bool = False) -> list[plots.SurvivalPanel]:
    panels = []
    for k in range(tasks):
        found = {}
        for a, arm in enumerate(ARMS[:arms]):
            if k == 2 and a == 1:
                continue  # an arm that is not planned there
            times = rng(k, a).lognormal(12 - 0.4 * a, 0.8, runs) if not never else np.full(runs, np.inf)
            at_risk = np.array([(times > s).sum() for s in [-1, *STEPS[:-1]]])
            share = np.array([(times > s).mean() for s in STEPS])
            found[arm] = plots.Survival(
                share, at_risk, np.clip(share - 0.2, 0, 1), np.clip(share + 0.2, 0, 1)
            )
        panels.append(plots.SurvivalPanel(f"{LONG[k]}, θ = 0.5", found))
    return panels


def level_panels(tasks: int, arms: int, nan: bool = False) -> list[plots.DotPanel]:
    names = (
        ("jumpstart", "difference of scores at step 0"),
        ("asymptote", "difference of scores at the end"),
        ("forward transfer", "(A_t − A_s) / (1 − A_s)"),
        ("transfer ratio", "(A_t − A_s) / A_s"),
    )
    panels = []
    for m, (title, label) in enumerate(names):
        dots = []
        for k in range(tasks + 1):
            for a, arm in enumerate(ARMS[1 : arms + 1]):
                value = rng(m, k, a).normal(0.2, 0.2)
                e = (
                    NONE
                    if nan
                    else Estimate(value, value - 0.1 - 0.3 * (k == 3), value + 0.1 + 4.0 * (k == 5))
                )
                last = k == tasks
                dots.append(plots.Dot("mean over tasks" if last else LONG[k], e, arm, suite=last))
        panels.append(plots.DotPanel(title, label, dots))
    return panels


def told(tasks: int) -> Figure:
    speed, codes = [], []
    for k in range(tasks):
        speed += [
            plots.Dot(LONG[k], ratio(1.2 + 0.3 * k + 0.2 * a), arm) for a, arm in enumerate(ARMS[1:3])
        ]
        for a, code in enumerate(("true", "mean", "wrong")):
            v = max(0.7 - 0.2 * a - 0.05 * k, -0.02)
            codes.append(plots.Dot(LONG[k], Estimate(v, v - 0.08, v + 0.08), code))
    return plots.told_or_not(
        plots.DotPanel("speed-up over scratch", "ρ̄", speed, 1.0, ratio=True),
        plots.DotPanel("hand-over: code told", "score g at step 0", codes, None),
        note="n = 10 pretrainings in each task; 95% t intervals",
    )


def break_even(tasks: int) -> Figure:
    inf = math.inf
    cases = (
        (Estimate(12.0, 7.0, 30.0), "12 [7, 30]"),
        (Estimate(60.0, 20.0, inf), "60 [20, unbounded]"),
        (Estimate(-8.0, 45.0, inf), "unbounded [45, unbounded]"),
        (Estimate(math.nan, reason="one seed"), "not estimable"),
        (Estimate(4.0, 3.0, 5.0), "4.0 [3.0, 5.0]"),
        (Estimate(math.nan, -inf, inf), "unbounded"),
        (Estimate(900.0, 300.0, 4000.0), "900 [300, 4000]"),
        (Estimate(33.0, reason="one seed"), "33 (one seed)"),
    )
    found = [plots.BreakEvenRow(LONG[k], cases[k][0], (10, 10), cases[k][1]) for k in range(tasks)]
    mean = plots.BreakEvenRow(
        "mean of all folds", Estimate(20.0, 12.0, 41.0), (tasks,), "20 [12, 41]", suite=True
    )
    return plots.break_even(
        [*found, mean], "mean over θ = 0.10 to 0.80", note="Fieller intervals; n: scratch + transfer"
    )


def sensitivity() -> Figure:
    names = (
        "θ = 0.10 to 0.80 (headline)", "θ = 0.10 to 0.50", "θ = 0.50 to 0.80", "half the budget",
        "M = 8 episodes", "not yet solved at step 0", "without the fold of the largest speed-up of all",
    )  # fmt: skip
    found = []
    for k, name in enumerate(names):
        e = ratio(1.7 + 0.1 * math.sin(k), 0.15)
        found.append(
            plots.ForestRow(name, e, (8,), f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]", suite=k == 0)
        )
    controls = [
        plots.ForestRow("the control", ratio(1.0 + 0.2 * a), (2,), f"{1 + 0.2 * a:.2f} [0.8, 1.9]", arm=arm)
        for a, arm in enumerate(ARMS[4:])
    ]
    return plots.sensitivity([*found, *controls], ratio(1.7, 0.15), note="n: folds, of 10+10 clusters each")


def comparability(arms: int, nan: bool = False) -> Figure:
    def panel(title: str, m: int, reference: float | None = None, first: int = 0) -> plots.DotPanel:
        dots = []
        for a, arm in enumerate(ARMS[first:arms]):
            v = 0.5 + 0.05 * a + 0.04 * m
            dots.append(plots.Dot(arm, NONE if nan else Estimate(v, v - 0.05, v + 0.07), arm))
        return plots.DotPanel(
            title, "score g" if reference is None else "P(arm > scratch)", dots, reference
        )

    tau = np.linspace(0, 1, 40)
    lines = [
        plots.Line(arm, tau, y := 1 / (1 + np.exp(9 * (tau - 0.5 - 0.06 * a))), y - 0.04, y + 0.04)
        for a, arm in enumerate(ARMS[:arms])
    ]
    names = ("mean", "median", "IQM", "optimality gap")
    return plots.comparability(
        [panel(name, m) for m, name in enumerate(names)],
        lines,
        panel("probability of improvement", 0, 0.5, 1),
        note="n = 10 runs of each of 8 tasks; 95% intervals, whole runs resampled",
    )


def variance(tasks: int) -> Figure:
    bars = []
    for k in range(min(tasks, 2)):
        parts = {"pretraining": 0.7 - 0.1 * k, "fine-tuning": 0.2, "evaluation": 0.05}
        bars.append(plots.VarianceRow(f"{LONG[k]}, transfer", parts, "sd 0.21, n = 10 × 3"))
    bars.append(plots.VarianceRow("no spread at all", {"pretraining": 0.0, "fine-tuning": 0.0}))
    n = np.array([3, 5, 10, 20, 40])
    effects = [plots.Line(LONG[k], n, np.exp((1 + 0.2 * k) / np.sqrt(n))) for k in range(tasks)]
    return plots.variance(bars, [plots.Line("suite", n, np.exp(0.5 / np.sqrt(n))), *effects], planned=10)


def distance(tasks: int, same: bool = False) -> Figure:
    points = []
    for k in range(tasks):
        d = 1.0 + (0.0 if same else rng(k).uniform(0, 1.5))
        v = rng(k, 3).normal(0.3, 0.1)
        mark = "solved at step 0" if k == 1 else ""
        points.append(
            plots.DistancePoint(LONG[k], d, ratio(1.5 + 0.2 * k, 0.3), Estimate(v, v - 0.1, v + 0.1), mark)
        )
    points.append(plots.DistancePoint("not estimable", 1.2, NONE, NONE))
    return plots.distance(points, note="n = 10+10 in each task; hollow: solved at step 0")


def matrix(tasks: int, nan: bool = False) -> Figure:
    values = np.exp(rng(tasks).normal(0.4, 0.9, (tasks, tasks)))
    np.fill_diagonal(values, np.nan)
    if nan:
        values[:] = np.nan
    elif tasks > 3:
        values[1, 3], values[2, 0] = np.nan, 43.2
    names = LONG[:tasks]
    return plots.transfer_matrix(
        values, names, names, values < 0.7, note="n = 3 runs in each cell and 10 from scratch"
    )


def dose(tasks: int) -> Figure:
    sources, steps = np.arange(1, 8.0), np.geomspace(1e5, 1e7, 5)
    panels = []
    for label, x, log in (
        ("number of source tasks", sources, False),
        ("steps of pretraining (control steps of all worlds of a run)", steps, True),
    ):
        lines = [plots.Line(LONG[k], x, 1 + 0.2 * k + np.log(1 + np.arange(len(x)))) for k in range(tasks)]
        y = np.mean([line.y for line in lines], axis=0)
        mean = plots.Line("mean over tasks", x, y, y / 1.2, y * 1.2, f"n = {tasks} tasks of 3+3")
        panels.append(plots.DosePanel(label, lines, mean if tasks > 1 else None, log))
    return plots.dose_curves(panels)


def selection() -> Figure:
    n = np.arange(1, 9.0)
    names = ("Gaussian process", "random", "spread out")
    lines = [
        plots.Line(m, n, (y := 2 - (0.8 + 0.2 * i) / n), y - 0.1, y + 0.1) for i, m in enumerate(names)
    ]
    return plots.selection(lines, note="n = 8 targets")


def cumulative() -> Figure:
    n = np.arange(0, 31.0)
    y = n * 4e5
    t = 4e6 + n * 1.5e5
    return plots.cumulative_steps(
        [plots.Line("scratch", n, y, y * 0.9, y * 1.1), plots.Line("transfer", n, t, t * 0.95, t * 1.05)],
        note="n = 10+10 in each of 8 tasks; mean over θ = 0.10 to 0.80",
    )


def joint() -> Figure:
    names = ("lock-step", "one after another", "joint", "joint-wide")
    return plots.joint_profile(
        reach_lines(names, 8e6), 8e6, note="n = 10 joint networks, 10 × 8 separate ones"
    )


ENDS = (0.1, 0.8)
FIGURES: dict[str, Callable[[], Figure]] = {
    "forest-1": lambda: plots.forest(rows(1, 1)),
    "forest-8": lambda: plots.forest(rows(8, 1), note="n: clusters from scratch + with transfer"),
    "forest-arms": lambda: plots.forest(rows(8, 6)),
    "forest-hard": lambda: plots.forest(hard_rows()),
    "forest-doses": lambda: plots.forest(dose_rows()),
    "curves-1": lambda: plots.learning_curves(curve_panels(1, 2, 2), STEPS, BUDGET, ENDS),
    "curves-8": lambda: plots.learning_curves(curve_panels(8, 2, 10), STEPS, BUDGET, ENDS),
    "curves-arms": lambda: plots.learning_curves(curve_panels(3, 7, 5), STEPS, BUDGET, ENDS, note="n = 5"),
    "curves-one-checkpoint": lambda: plots.learning_curves(one_checkpoint(), STEPS, BUDGET, ENDS),
    "theta-8": lambda: by_threshold(8),
    "theta-1": lambda: by_threshold(1),
    "theta-nan": lambda: by_threshold(2, nan=True),
    "times-8": lambda: plots.times_by_threshold(threshold_panels(8, 2, "time"), THETA, 1000, BUDGET),
    "times-arms": lambda: plots.times_by_threshold(threshold_panels(2, 7, "time"), THETA, 1000, BUDGET),
    "shares-8": lambda: plots.success_shares(threshold_panels(8, 2, "share"), THETA),
    "shares-arms": lambda: plots.success_shares(threshold_panels(4, 7, "share"), THETA),
    "runtime-2": lambda: plots.runtime_profile(reach_lines(ARMS[:2], BUDGET), BUDGET),
    "runtime-arms": lambda: plots.runtime_profile(reach_lines(ARMS, BUDGET), BUDGET, note="15 values of θ"),
    "runtime-censored": lambda: plots.runtime_profile(reach_lines(ARMS[:1], BUDGET, never=True), BUDGET),
    "joint": joint,
    "km-1": lambda: plots.kaplan_meier(survival_panels(1, 2, 2), STEPS, BUDGET),
    "km-8": lambda: plots.kaplan_meier(survival_panels(8, 2, 10), STEPS, BUDGET, note="n = 10 in each arm"),
    "km-arms": lambda: plots.kaplan_meier(survival_panels(3, 7, 10), STEPS, BUDGET),
    "km-censored": lambda: plots.kaplan_meier(survival_panels(2, 2, 2, never=True), STEPS, BUDGET),
    "levels-1": lambda: plots.levels(level_panels(1, 1)),
    "levels-8": lambda: plots.levels(level_panels(8, 1), note="n = 10+10 in each task; 95% t intervals"),
    "levels-arms": lambda: plots.levels(level_panels(8, 6)),
    "levels-nan": lambda: plots.levels(level_panels(2, 1, nan=True)),
    "told-8": lambda: told(8),
    "told-1": lambda: told(1),
    "break-even": lambda: break_even(8),
    "break-even-1": lambda: break_even(1),
    "cumulative": cumulative,
    "variance-8": lambda: variance(8),
    "variance-1": lambda: variance(1),
    "sensitivity": sensitivity,
    "comparability": lambda: comparability(7),
    "comparability-nan": lambda: comparability(2, nan=True),
    "distance-8": lambda: distance(8),
    "distance-same": lambda: distance(5, same=True),
    "matrix-8": lambda: matrix(8),
    "matrix-2": lambda: matrix(2),
    "matrix-nan": lambda: matrix(3, nan=True),
    "dose-8": lambda: dose(8),
    "dose-1": lambda: dose(1),
    "selection": selection,
}  # fmt: skip
