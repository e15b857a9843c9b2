"""From the store to numbers: every comparison of two arms, on every fold, over every set of folds.

Nothing here is put into words, and nothing draws. Every random draw has a seed of its own that depends
on what it is drawn for alone.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness import measures, statistics
from harness.measures import BASELINE, SIGNIFICANT, ArmCurves, FoldMeasures
from harness.statistics import Estimate
from harness.store import COMPLETE, Store

TREATMENT = "transfer"
SETS = {
    "all_folds": "all folds",
    "not_yet_solved": "folds not yet solved at step 0 (acceleration)",
}
"""The sets of folds over which ρ̄ is reported; the plan's ``headline`` is one of them (PROTOCOL §4.3)."""
AGAINST = ("blind", "single_source")
"""Arms that transfer is compared with besides scratch: what the code, and what many tasks are worth."""
LONGEST_ERROR = 240
"""Characters of an error that are shown."""


@dataclasses.dataclass(frozen=True, eq=False)
class FoldResult:
    """One fold's measures of two arms with their intervals and tests."""

    measures: FoldMeasures
    """The measures."""
    log_ratio: Estimate
    """log ρ̄ with its t interval."""
    p: float
    """Studentised permutation p of equal mean times."""
    p_holm: float
    """The same, Holm-adjusted over the folds."""
    bonferroni: Estimate
    """log ρ̄ with the interval that holds for all estimable folds at once."""
    jumpstart: Estimate
    """g_arm(0) - g_baseline(0)."""
    asymptote: Estimate
    """Difference of the means of the last three checkpoints."""

    @property
    def negative(self) -> bool:
        """Negative transfer: Holm-adjusted p below .05 and log ρ̄ < 0 (PROTOCOL §4.10)."""
        return self.verdict == "negative"

    @property
    def verdict(self) -> str:
        """``positive`` or ``negative`` where that is shown, else ``inconclusive``."""
        if self.p_holm < SIGNIFICANT and self.log_ratio.value != 0:
            return "negative" if self.log_ratio.value < 0 else "positive"
        return "inconclusive"

    @property
    def n(self) -> str:
        """Clusters of the baseline and of the arm, ``5+5``."""
        return "+".join(str(curves.count) for curves in self.measures.curves)

    @property
    def mark(self) -> str:
        """What sets the fold apart in a table; may be empty."""
        marks = ["solved at step 0"] * self.measures.solved + ["negative transfer"] * self.negative
        return ", ".join(marks)


@dataclasses.dataclass(frozen=True, eq=False)
class SetResult:
    """ρ̄ over a set of folds."""

    key: str
    """One of :data:`SETS`."""
    folds: tuple[FoldResult, ...]
    """All folds of the set, the not estimable ones too."""
    log_ratio: Estimate
    """Mean of L_k over the estimable folds."""
    p: float
    """Permutation p, labels permuted within each task."""

    @property
    def name(self) -> str:
        """What the set is."""
        return SETS[self.key]

    @property
    def estimable(self) -> tuple[FoldResult, ...]:
        """The folds that the mean is over."""
        return tuple(f for f in self.folds if not math.isnan(f.log_ratio.value))

    @property
    def limit(self) -> str:
        """How the first checkpoint limits the mean, see :func:`harness.measures.resolution_limit`."""
        return measures.join_limits(f.measures.limit for f in self.estimable)


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Two arms on all folds on which both are planned."""

    baseline: str
    """What the times of are divided by the arm's."""
    arm: str
    """The arm; faster than the baseline where ρ̄ is above 1."""
    folds: tuple[FoldResult, ...]
    """In the plan's order."""
    sets: Mapping[str, SetResult]
    """By the keys of :data:`SETS`."""

    @property
    def n(self) -> str:
        """Clusters of the baseline and of the arm on each fold: ``5+5``, or ``4+5 to 5+5``."""
        counts = sorted({tuple(c.count for c in f.measures.curves) for f in self.folds})
        ends = counts[:1] + counts[1:][-1:]
        return " to ".join("+".join(map(str, both)) for both in ends)


@dataclasses.dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that the report says, before it is put into words."""

    plan: Mapping[str, Any]
    """The plan."""
    runs: pd.DataFrame
    """:meth:`harness.store.Store.runs` after :func:`harness.measures.mark_diverged`."""
    evaluations: pd.DataFrame
    """:meth:`harness.store.Store.evaluations` with scores, of runs that are complete and not damaged."""
    curves: Mapping[tuple[int, str], ArmCurves]
    """Learning curves by fold and arm, of all arms that are planned there."""
    arrivals: Mapping[tuple[int, str], np.ndarray]
    """T_θ of the same runs, ``(runs, thresholds)``, ``inf`` where censored."""
    comparisons: Mapping[tuple[str, str], Comparison]
    """By baseline and arm; the first is the headline's. Empty for a plan without folds."""
    competence: pd.DataFrame
    """:func:`harness.measures.competence`."""
    damaged: Mapping[str, str]
    """Runs left out because their rows are not what the plan asks for, with the reason."""
    unknown: Sequence[str]
    """Directories of the store that are no run of the plan."""
    changed: Sequence[str] = ()
    """Complete runs whose rows are not those that they were finished with."""
    errors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Of the runs that failed, in the plan's order, the last line of what was stored of the error."""
    backends: Sequence[str] = ()
    """What stepped the worlds of its runs, ``batch`` or ``warp``, each once."""

    @property
    def physics(self) -> str:
        """What stepped the worlds, as a sentence, if not all of them MuJoCo on the CPU."""
        if "warp" not in self.backends:
            return ""
        others = ", those of others by MuJoCo on the CPU" if len(self.backends) > 1 else ""
        return f"Worlds{' of some runs' * bool(others)} were stepped by MuJoCo Warp{others}."

    @property
    def title(self) -> str:
        """The plan's title, see :func:`harness.measures.plan_title`."""
        return measures.plan_title(self.plan)

    @property
    def kind(self) -> str:
        """``leave_one_out``, ``joint``, ``dose`` or ``matrix``."""
        return str(self.plan.get("kind", "leave_one_out"))

    @property
    def main(self) -> Comparison:
        """The comparison that the headline is of.

        Raises:
            ValueError: for a plan of whose runs no two arms can be compared.
        """
        if not self.comparisons:
            raise ValueError(
                f"the plan compares nothing: its arms are {', '.join(self.arms)} and its folds "
                f"{self.plan['folds']}, and of no other arm than {BASELINE} are runs planned beside it"
            )
        return next(iter(self.comparisons.values()))

    @property
    def folds(self) -> tuple[FoldResult, ...]:
        """Its folds, in the plan's order."""
        return self.main.folds

    @property
    def sets(self) -> Mapping[str, SetResult]:
        """Its sets of folds."""
        return self.main.sets

    @property
    def headline(self) -> SetResult:
        """The set that the plan named beforehand."""
        return self.sets[self.plan["headline"]]

    @property
    def against_scratch(self) -> list[Comparison]:
        """Every arm against scratch, in the plan's order."""
        return [c for c in self.comparisons.values() if c.baseline == BASELINE]

    @property
    def n(self) -> str:
        """Clusters behind every arm's comparison with scratch, for a caption."""
        found = {c.arm: c.n for c in self.against_scratch}
        baseline = self.main.baseline
        if len(set(found.values())) == 1:
            arm = next(iter(found)) if len(found) == 1 else "each arm"
            return f"n = {next(iter(found.values()))} independent runs of {baseline} + {arm} on each task"
        listed = ", ".join(f"{n} of {arm}" for arm, n in found.items())
        return f"n, independent runs of {baseline} + arm on each task: {listed}"

    @property
    def arms(self) -> list[str]:
        """All arms that learn, in the plan's order."""
        return [str(arm) for arm in self.plan["arms"]]

    @property
    def incomplete(self) -> bool:
        """Whether a planned run has no usable result."""
        return bool(self.damaged) or not self.runs["status"].isin(COMPLETE).all()

    @property
    def exploratory(self) -> bool:
        """Whether the plan says so, or the store holds what no plan asked for or what was changed."""
        return bool(self.plan["exploratory"] or self.unknown or self.changed)

    @property
    def marks(self) -> list[str]:
        """What the title says of the report's standing."""
        marks = ["exploratory"] * self.exploratory + ["incomplete"] * self.incomplete
        # a plan that is exploratory anyway says what else is the matter
        return marks + ["rows changed"] * bool(self.changed) + ["unplanned runs"] * bool(self.unknown)

    @property
    def interpolated(self) -> bool:
        """Whether the plan interpolates arrivals between checkpoints."""
        return measures.interpolates(self.plan)

    @property
    def thresholds(self) -> np.ndarray:
        """θ grid, ``(thresholds,)``."""
        return np.asarray(self.plan["thresholds"], float)

    @property
    def shown(self) -> list[int]:
        """Indices of the thresholds at which success shares are printed: about the middle and the top."""
        return sorted({int(np.abs(self.thresholds - 0.5).argmin()), len(self.thresholds) - 1})

    def of_fold(self, fold: int) -> dict[str, ArmCurves]:
        """The arms of which a run on a fold is complete, in the plan's order."""
        return {a: c for a in self.arms if (c := self.curves.get((fold, a))) is not None and c.count}

    @property
    def begun(self) -> list[int]:
        """The folds of which a run is complete."""
        return [fold for fold in self.plan["folds"] if self.of_fold(fold)]

    def name(self, task: int) -> str:
        """Name of a published task, by its number."""
        return measures.task_name(self.plan, task)


def analyse(directory: str | os.PathLike[str]) -> Analysis:
    """Computes from the store what most sections of the report share.

    Args:
        directory: the experiment's directory.

    Raises:
        StoreError: if the directory holds no readable plan or rows.
        ValueError: if the plan lacks a task or a reference score that the rows need, or names an
            unknown headline.
    """
    store = Store(directory)
    plan = store.plan
    store.check_reported()
    if plan["headline"] not in SETS:
        raise ValueError(f"unknown headline {plan['headline']!r} in the plan; valid: {', '.join(SETS)}")
    evaluations = measures.add_scores(store.evaluations(), plan["reference"]["scores"])
    runs = measures.mark_diverged(evaluations, store.runs())
    damaged = measures.damaged_runs(evaluations, runs, plan)
    curves = measures.all_curves(evaluations, runs, plan, damaged)
    measured = (np.asarray(plan["thresholds"], float), plan["budget"], measures.interpolates(plan))
    arrivals = {key: measures.arrivals(c.steps, c.scores, *measured) for key, c in curves.items()}
    usable = runs[runs["status"].isin(COMPLETE) & ~runs["run"].isin(list(damaged))]
    return Analysis(
        plan,
        runs,
        evaluations[evaluations["run"].isin(usable["run"])],
        curves,
        arrivals,
        {pair: compare(plan, curves, *pair) for pair in pairs(plan, curves)},
        measures.competence(evaluations, runs, plan),
        damaged,
        store.unknown(),
        store.changed(),
        {run: last_error(store.directory, run) for run in runs.loc[runs["status"] == "failed", "run"]},
        # of before there was a choice, none is recorded
        sorted({str(record.get("backend", "batch")) for record in store.records()}),
    )


def last_error(directory: Path, run: str) -> str:
    """The last line of a failed run's error: of a traceback it is what was raised.

    The text is a stranger's: what cannot be printed is left out, and it is cut where it is long.
    """
    record = json.loads((directory / "runs" / run / "done.json").read_text(encoding="utf-8"))
    lines = [line.strip() for line in str(record.get("error") or "").splitlines() if line.strip()]
    text = "".join(c for c in lines[-1] if c.isprintable()) if lines else "no error was stored"
    return text if len(text) <= LONGEST_ERROR else f"{text[:LONGEST_ERROR]} …"


def pairs(plan: Mapping[str, Any], curves: Mapping[tuple[int, str], ArmCurves]) -> list[tuple[str, str]]:
    """Which arms are compared, ``(baseline, arm)``: all with scratch, and transfer with some of them."""
    there = [arm for arm in plan["arms"] if any(a == arm for _, a in curves)]
    if BASELINE not in there:
        return []
    arms = sorted((a for a in there if a != BASELINE), key=lambda a: a != TREATMENT)
    also = [(a, TREATMENT) for a in AGAINST if a in there and TREATMENT in there]
    return [*((BASELINE, arm) for arm in arms), *also]


def compare(
    plan: Mapping[str, Any], curves: Mapping[tuple[int, str], ArmCurves], baseline: str, arm: str
) -> Comparison:
    """Compares two arms on every fold on which both are planned.

    Args:
        plan: the plan.
        curves: by fold and arm.
        baseline: whose times are divided.
        arm: by whose.
    """
    found = measures.compare(curves, plan, arm, baseline)
    # what is not estimable claims nothing, here as in Holm's adjustment
    claims = max(1, sum(not math.isnan(fold.speed_up) for fold in found))
    folds = [compare_fold(fold, claims) for fold in found]
    adjusted = statistics.holm([fold.p for fold in folds])
    folds = [dataclasses.replace(fold, p_holm=p) for fold, p in zip(folds, adjusted, strict=True)]
    # a fold whose arm has no run yet is neither solved nor unsolved
    unsolved = [f for f in folds if len(f.measures.at_start[1]) and not f.measures.solved]
    sets = {
        key: set_result(key, chosen, (baseline, arm))
        for key, chosen in (("all_folds", folds), ("not_yet_solved", unsolved))
    }
    return Comparison(baseline, arm, tuple(folds), sets)


def compare_fold(fold: FoldMeasures, of: int) -> FoldResult:
    """Intervals and tests of one of ``of`` estimable folds; p is not yet adjusted for them."""
    arms = (fold.curves[0].arm, fold.curves[1].arm)
    return FoldResult(
        fold,
        fold.log_ratio(),
        statistics.permutation_p(*fold.mean_times, rng("permutation", fold.fold, *arms)),
        math.nan,
        fold.log_ratio(statistics.bonferroni(of)),
        statistics.difference(*fold.at_start, names=arms),
        statistics.difference(*fold.at_end, names=arms),
    )


def set_result(key: str, folds: Sequence[FoldResult], arms: tuple[str, str]) -> SetResult:
    """ρ̄ over a set of folds."""
    times = [f.measures.mean_times for f in folds if not math.isnan(f.log_ratio.value)]
    mean = statistics.suite_mean([f.log_ratio for f in folds])
    # why the mean has no interval is the reason of one task
    few = [f.measures.task for f in folds if mean.reason and f.log_ratio.reason == mean.reason]
    if few:
        mean = dataclasses.replace(mean, reason=f"{mean.reason} on {few[0]}")
    return SetResult(
        key,
        tuple(folds),
        mean,
        statistics.suite_permutation_p(times, rng("suite permutation", key, *arms)),
    )


def rng(*key: Any) -> np.random.Generator:
    """A generator that depends on nothing but what it is used for."""
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


# --- the flow of runs ------------------------------------------------------------------------------


def flow(analysis: Analysis) -> pd.DataFrame:
    """The flow of runs: one row per phase and arm, and a total.

    Returns:
        Columns ``phase, arm, planned, started, finished, diverged, failed, unfinished, missing, excluded``;
        ``started`` counts every run that is not missing, ``excluded`` those left out as damaged.
    """
    rows = []
    keys = list(dict.fromkeys(zip(analysis.runs["phase"], analysis.runs["arm"], strict=True)))
    for phase, arm in [*keys, ("total", "")]:
        chosen = analysis.runs
        if phase != "total":
            chosen = chosen[(chosen["phase"] == phase) & (chosen["arm"] == arm)]
        count = chosen["status"].value_counts()
        rows.append(
            {
                "phase": phase,
                "arm": arm,
                "planned": len(chosen),
                "started": len(chosen) - int(count.get("missing", 0)),
                **{status: int(count.get(status, 0)) for status in ("finished", "diverged", "failed")},
                "unfinished": int(count.get("started", 0)),
                "missing": int(count.get("missing", 0)),
                "excluded": int(chosen["run"].isin(list(analysis.damaged)).sum()),
            }
        )
    return pd.DataFrame(rows)


def tested(analysis: Analysis) -> list[tuple[int, int]]:
    """Numbers of clusters of both arms of all tests whose p are adjusted for one another, of the headline.

    In a matrix these are all pairs. A plan of doses claims nothing of single tasks, and a joint one has no
    folds.
    """
    compared = {"matrix": analysis.against_scratch, "dose": []}.get(
        analysis.kind, analysis.against_scratch[:1]
    )
    folds = [f.measures for comparison in compared for f in comparison.folds if f.measures.complete]
    return [(f.curves[0].count, f.curves[1].count) for f in folds]


# --- no leaks --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class LeakCheck:
    """Whether one held-out task is absent from what the network was trained on."""

    task: str
    """The held-out task."""
    sources: int
    """How many tasks the pretrainings of the fold were trained on."""
    same: tuple[str, ...]
    """Sources whose model and goal are those of the held-out task, or that are the task itself."""
    nearest: str
    """The nearest source."""
    distance: float
    """Its distance, in descriptor units."""
    minimum: float
    """The least distance that the plan allows."""

    @property
    def holds(self) -> bool:
        """Whether nothing leaked."""
        return not self.same and self.distance >= self.minimum


def leak_checks(plan: Mapping[str, Any]) -> list[LeakCheck]:
    """Proves again from the plan's hashes and distances that no held-out task was trained on.

    Sources are read off the pretrainings of the fold, and off those that its learning runs start from,
    which in a matrix belong to no fold. The arm ``ceiling`` is trained on the held-out task on purpose and
    is left out.

    Args:
        plan: a plan with ``leaks``.

    Returns:
        One entry per fold that has pretrainings, in the plan's order.

    Raises:
        ValueError: if a task has no hash or distance.
    """
    leaks = plan["leaks"]
    names = {task["number"]: str(task["name"]) for task in plan["tasks"]}
    planned = {run["id"]: run for run in plan["runs"]}
    checks = []
    for fold in plan["folds"]:
        held_out = names[fold]
        of_fold = [r for r in plan["runs"] if r["fold"] == fold and r["arm"] != "ceiling"]
        starts = [planned[r["start"]] for r in of_fold if r["start"] is not None]
        pretrainings = [r for r in (*of_fold, *starts) if r["phase"] == "pretrain"]
        numbers = {number for run in pretrainings for number in run["tasks"]}
        sources = [names[number] for number in sorted(numbers)]
        if not sources:
            continue
        try:
            hashes = {name: (leaks["models"][name], leaks["goals"][name]) for name in [held_out, *sources]}
            distances = {
                # no task has a distance to itself in the plan
                name: 0.0 if name == held_out else float(leaks["distances"][held_out][name])
                for name in sources
            }
        except KeyError as error:
            raise ValueError(f"the plan's leaks lack task {error} for fold {held_out!r}") from None
        nearest = min(sources, key=lambda name: (distances[name], name))
        same = tuple(s for s in sources if s == held_out or hashes[s] == hashes[held_out])
        checks.append(
            LeakCheck(
                held_out, len(sources), same, nearest, distances[nearest], float(leaks["min_distance"])
            )
        )
    return checks
