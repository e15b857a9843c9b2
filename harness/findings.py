"""What several full experiments found, as tables and figures inside a Markdown page.

A page says where, between two marks on lines of their own, and this fills in what stands there::

    <!-- findings: overview biped octopus -->
    <!-- /findings -->

The first word says what (one of :data:`BLOCKS` or :data:`FIGURES`), the others which experiments, as
directories beside or below the page. So the prose is written by hand, and all that stands below a mark
follows from the rows.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from statistics import median

import numpy as np
import pandas as pd
import scipy
from matplotlib.figure import Figure

from harness import joint, markdown, measures, plots, statistics
from harness.report import Analysis, analyse, words
from harness.report.analysis import TREATMENT, Comparison, FoldResult, SetResult, compare, flow, rng
from harness.report.sections_curves import suite_bands, threshold_limits, threshold_ratios
from harness.report.sections_distance import distance_points
from harness.report.sections_joint import analyse_joint, completion_ratios
from harness.report.sections_opening import forest_rows
from harness.report.variations import resolution
from harness.report.write import write_whole
from harness.schema import CONTROLS
from harness.statistics import Estimate
from harness.store import Store

BEGIN, END = "<!-- findings:", "<!-- /findings -->"
MARK = re.compile(rf"^{BEGIN} (?P<what>[\w-]+)(?P<where>(?: [\w./-]+)+) -->$")

Table = list[Sequence[str]]
VERDICTS = {"positive": "faster", "negative": "slower", "inconclusive": "open"}
NOT_AS_THEY_ARE = ("normalizer", "shuffled")
"""Arms whose networks are not handed on as they were trained."""
MARKS = (
    "Hollow: mean score of 0.5 or more before the first step on the task. Arrow: many runs had arrived by "
    "the first checkpoint, so that the speed-up may be larger."
)
_DASH = "–"


# --- what the blocks say -----------------------------------------------------------------------------


def overview(plans: Sequence[Analysis]) -> str:
    """The answer, a column for each family: of measures there are more than a page is wide."""
    paid = " or ".join(dict.fromkeys(f"θ = {plan.plan['break_even_threshold']:.2f}" for plan in plans))
    rows: Table = [
        ("family", "speed-up, these tasks [95%]", "the same wherever between checkpoints runs arrived",
         "the same with arrivals dated to checkpoints",
         "for tasks like these [95%]", "permutation p", "tasks faster",
         "tasks slower", f"speed-up at {_theta(plans, 0)} alone [95%]",
         f"speed-up at {_top(plans)} alone [95%]",
         f"scratch reaches {_top(plans)}", f"transfer reaches {_top(plans)}",
         f"new tasks until pretraining pays, at {paid}")
    ]  # fmt: skip
    families = [str(plan.plan["family"]) for plan in plans]
    if len({*families}) < len(families):
        families = [plan.title for plan in plans]
    for name, plan in zip(families, plans, strict=True):
        main = plan.main
        suite = main.sets["all_folds"]
        like_these = statistics.sign_flip([f.log_ratio.value for f in suite.estimable])
        seen = resolution(suite.folds)
        rows.append(
            (
                name,
                f"**{_ratio(suite)}**{_part(suite, main.folds)}",
                words.span_of(seen) if seen else _DASH,
                words.factor(seen.other if plan.interpolated else seen.planned) if seen else _DASH,
                words.ratio(like_these, suite.limit),
                words.p_value(suite.p),
                *_verdicts(main),
                _to_one_score(main, 0),
                _to_one_score(main, -1),
                *(_share(main.folds, arm) for arm in (0, 1)),
                _pays(plan),
            )
        )
    return "\n\n".join(
        [table([*zip(*rows, strict=True)]), *_mixed([(plan, [plan.main]) for plan in plans])]
    )


def _verdicts(found: Comparison) -> tuple[str, str]:
    """On how many tasks the arm is shown to be faster, and slower, than the baseline."""
    verdicts = [f.verdict for f in found.folds if f.measures.complete]
    faster, slower = (f"{verdicts.count(v)} of {len(verdicts)}" for v in ("positive", "negative"))
    return faster, slower


def _to_one_score(found: Comparison, theta: int) -> str:
    """The speed-up to one θ alone, by its index, mean over its tasks."""
    estimates = [of_fold[theta] for of_fold in threshold_ratios(found)]
    limits = [
        threshold_limits(f.measures)[theta]
        for f, e in zip(found.folds, estimates, strict=True)
        if not math.isnan(e.value)
    ]
    return words.ratio(statistics.suite_mean(estimates), measures.join_limits(limits))


def starts(plans: Sequence[Analysis]) -> str:
    """What networks can do when they are handed on: on their own tasks, and on the one held out."""
    rows: Table = [
        ("family", "networks of", "control steps of pretraining", "and then at most, B",
         "score on their own tasks (of single folds)", "score on the task held out, at step 0",
         f"networks at {measures.SOLVED:g} or more there",
         f"tasks solved at step 0 (mean of {measures.SOLVED:g} or more)",
         "speed-up on those not solved [95%]")
    ]  # fmt: skip
    for plan in plans:
        for found in plan.against_scratch:
            own = plan.competence[plan.competence["arm"] == found.arm].groupby("fold")["score"].mean()
            tried = [f for f in found.folds if f.measures.complete]
            if own.empty or not tried or found.arm in NOT_AS_THEY_ARE:
                continue
            solved = sum(f.measures.solved for f in tried)
            unsolved = found.sets["not_yet_solved"]
            each = np.concatenate([f.measures.at_start[1] for f in tried])
            steps = {measures.pretraining_steps(plan.plan, f.measures.curves[1]) for f in tried}
            rows.append(
                (
                    str(plan.plan["family"]),
                    plots.arm_label(found.arm),
                    " or ".join(f"{s:,.0f}" for s in sorted(steps)),
                    f"{plan.plan['budget']:,}",
                    f"{own.mean():.2f} ({own.min():.2f} to {own.max():.2f})",
                    words.number(float(np.mean([_start(f) for f in tried]))),
                    f"{int((each >= measures.SOLVED).sum())} of {len(each)}",
                    f"{solved} of {len(tried)}",
                    "– (all are)" if solved == len(tried) else _ratio(unsolved),
                )
            )
    return table(rows)


def folds(plans: Sequence[Analysis]) -> str:
    """Every held-out task of a family, the nearest to its sources first."""
    (plan,) = plans
    main = plan.main
    nearest = measures.nearest_sources(plan.plan, main.arm).set_index("fold")
    headings = {
        (main.baseline, "single_source"): "speed-up from the nearest task alone [95%]",
        ("single_source", main.arm): "all others over the nearest alone [95%] (Holm p)",
    }
    single = {
        pair: {f.measures.fold: f for f in plan.comparisons[pair].folds}
        for pair in headings
        if pair in plan.comparisons
    }
    rows: Table = [
        ("held out", "distance to the nearest", "score at step 0 (networks at 0.5)", "speed-up [95%]",
         "verdict (Holm p)", f"at {_top(plans)} alone [95%]", f"reach {_top(plans)}: scratch, transfer",
         *(heading for pair, heading in headings.items() if pair in single))
    ]  # fmt: skip
    top = {f.measures.fold: e[-1] for f, e in zip(main.folds, threshold_ratios(main), strict=True)}
    for f in sorted(main.folds, key=lambda f: nearest.loc[f.measures.fold, "distance"]):
        fold = f.measures.fold
        near, begun = nearest.loc[fold], f.measures.at_start[1]
        at_half = f" ({int((begun >= measures.SOLVED).sum())} of {len(begun)})" if len(begun) else ""
        said = VERDICTS[f.verdict] if f.measures.complete else "no data"
        rows.append(
            (
                f"`{f.measures.task}`",
                f"{near['distance']:.2f} (`{near['nearest']}`)",
                f"{words.number(_start(f))}{at_half}",
                # a claim of one among many needs the interval that holds for all of them (PROTOCOL §4.10)
                f"{words.ratio(f.bonferroni, f.measures.limit)} (Bonferroni)"
                if f.negative
                else words.ratio(f.log_ratio, f.measures.limit),
                f"{said} ({words.p_value(f.p_holm)})",
                words.ratio(top[fold], threshold_limits(f.measures)[-1]),
                ", ".join(f"{share:.0%}" if n else _DASH for share, n in (_arrived(f, 0), _arrived(f, 1))),
                *(
                    _of_fold(of.get(fold))
                    + f" ({words.p_value(of[fold].p_holm)})" * (pair[0] == "single_source" and fold in of)
                    for pair, of in single.items()
                ),
            )
        )
    distances = [nearest.loc[f.measures.fold, "distance"] for f in main.folds]
    return "\n\n".join([table(rows), _by_distance(main.folds, distances)])


def _arrived(fold: FoldResult, arm: int) -> tuple[float, int]:
    return words.arrived_share([fold], arm, -1)


def _of_fold(found: FoldResult | None) -> str:
    return _DASH if found is None else words.ratio(found.log_ratio, found.measures.limit)


def _by_distance(folds: Sequence[FoldResult], distances: Sequence[float]) -> str:
    """Rank correlations with distance, as a sentence: of the speed-up, and of the jumpstart."""
    found = []
    for name, values in (
        ("the speed-up", [f.log_ratio.value for f in folds]),
        ("the jumpstart", [f.jumpstart.value for f in folds]),
    ):
        known = ~np.isnan(values)
        x, y = np.asarray(distances)[known], np.asarray(values)[known]
        if len(x) < 4 or len({*x}) < 2 or len({*y}) < 2:
            found.append(f"{name}: too few tasks")
            continue
        rho, p = rank_correlation(x, y, rng("distance", name))
        found.append(f"{name} {words.number(rho)} (p {words.p_is(p)}, {len(x)} tasks)")
    return f"Spearman's rank correlation with distance: {'; '.join(found)}."


def rank_correlation(
    x: np.ndarray, y: np.ndarray, generator: np.random.Generator, resamples: int = 9999
) -> tuple[float, float]:
    """Spearman's rank correlation of two arrays ``(n,)``, with a two-sided permutation p."""
    ranks = [scipy.stats.rankdata(values) for values in (x, y)]
    a, b = ((r - r.mean()) / (r.std() * math.sqrt(len(r))) for r in ranks)
    rho = float(a @ b)
    by_chance = generator.permuted(np.tile(a, (resamples, 1)), axis=1) @ b
    # those that are as large but for rounding count too
    return rho, float(1 + (np.abs(by_chance) >= abs(rho) - 1e-9).sum()) / (resamples + 1)


MEANINGS = {
    ("scratch", "transfer"): "what pretraining on the other tasks is worth",
    ("scratch", "blind"): "the same, never told the task",
    ("scratch", "single_source"): "from the nearest task alone",
    ("blind", "transfer"): "what the code is worth",
    ("single_source", "transfer"): "what many tasks are worth",
}
"""The question of each comparison, in the order of the table."""


def arms(plans: Sequence[Analysis]) -> str:
    """The arms that are planned on every fold, against each other."""
    rows: Table = [
        ("family", "steps of", "over steps of", "ratio [95%]", "permutation p", "faster", "slower",
         f"the first reaches {_top(plans)}", f"the second reaches {_top(plans)}", "what it shows")
    ]  # fmt: skip
    shared = False
    compared = []
    for plan in plans:
        compared.append((plan, [plan.comparisons[pair] for pair in MEANINGS if pair in plan.comparisons]))
        for pair, meaning in MEANINGS.items():
            if pair not in plan.comparisons:
                continue
            found = plan.comparisons[pair]
            suite = found.sets["all_folds"]
            dependent = any(_folds_share_networks(plan, arm) for arm in pair)
            shared |= dependent
            rows.append(
                (
                    str(plan.plan["family"]),
                    *(plots.arm_label(arm) for arm in pair),
                    f"{_ratio(suite)}{_part(suite, found.folds)}{' †' * dependent}",
                    words.p_value(suite.p),
                    *_verdicts(found),
                    *(_share(found.folds, side) for side in (0, 1)),
                    meaning,
                )
            )
    note = "† Approximate: several tasks learn from the same networks, so that the interval is too narrow."
    return "\n\n".join([table(rows), *[note] * shared, *_mixed(compared)])


def _folds_share_networks(plan: Analysis, arm: str) -> bool:
    """Whether runs of an arm on different folds start from one network."""
    starts = [
        (run["start"], run["fold"]) for run in plan.plan["runs"] if run["arm"] == arm and run["start"]
    ]
    return len({*starts}) > len({start for start, _ in starts})


def controls(plans: Sequence[Analysis]) -> str:
    """The controls over scratch, with transfer on the same folds beside them."""
    rows: Table = [
        ("family", "folds", "seeds", "arm", "speed-up [95%]", "permutation p", "score at step 0",
         f"scratch reaches {_top(plans)}", f"the arm reaches {_top(plans)}")
    ]  # fmt: skip
    compared = [(plan, _controls(plan)) for plan in plans]
    for plan, comparisons in compared:
        for found in comparisons:
            suite = found.sets["all_folds"]
            rows.append(
                (
                    str(plan.plan["family"]),
                    ", ".join(f"`{f.measures.task}`" for f in found.folds),
                    found.n,
                    plots.arm_label(found.arm),
                    f"{_ratio(suite)}{_part(suite, found.folds)}",
                    words.p_value(suite.p),
                    words.number(float(np.mean([_start(f) for f in found.folds]))),
                    *(_share(found.folds, side) for side in (0, 1)),
                )
            )
    if len(rows) == 1:
        return "No controls were planned."
    return "\n\n".join([table(rows), *_mixed(compared)])


def codes(plans: Sequence[Analysis]) -> str:
    """What pretrained networks score on the held-out task at step 0, by the code that they are told.

    Below a family's mean stand those of its tasks on which a difference alone, adjusted for nothing, is
    other than 0.
    """
    told = ("true", "mean", "wrong")
    rows: Table = [
        ("family", "held out", *(f"{code} code" for code in told),
         *(f"true - {code} [95%] (Holm p)" for code in told[1:]))
    ]  # fmt: skip
    for plan in plans:
        scores = measures.code_scores(plan.evaluations, plan.runs, plan.plan)
        scores = scores[scores["arm"] == TREATMENT]
        if scores.empty:
            continue
        # every task counts once, however many of its networks there are
        means = scores.groupby(["fold", "code"])["score"].mean().unstack("code")
        worth = measures.code_differences(scores).set_index(["fold", "code"])
        apart = worth[(worth["low"] > 0) | (worth["high"] < 0)].index.get_level_values("fold")
        for fold in [-1, *sorted({*apart} - {-1})]:
            given = means.mean() if fold == -1 else means.loc[fold]
            rows.append(
                (
                    str(plan.plan["family"]),
                    f"mean of {len(means)} tasks" if fold == -1 else f"`{plan.name(fold)}`",
                    *(words.number(given.get(code, math.nan)) for code in told),
                    *(_difference(worth, (fold, code)) for code in told[1:]),
                )
            )
    return table(rows) if len(rows) > 1 else "No network was told codes."


def _difference(worth: pd.DataFrame, key: tuple[int, str]) -> str:
    if key not in worth.index:
        return _DASH
    found = worth.loc[key]
    told = words.difference(
        Estimate(found["difference"], found["low"], found["high"], reason=found["reason"])
    )
    # a mean over tasks is one comparison
    return told if key[0] == -1 else f"{told} ({words.p_value(found['p_holm'])})"


def together(plans: Sequence[Analysis]) -> str:
    """Joint training against a network for each task.

    Until all tasks are at one θ, separate networks are trained in lock-step, or one after another.
    """
    half = f"θ = {measures.SOLVED:.2f}"
    rows: Table = [
        ("family", "networks",
         "speed-up over separate networks in lock-step, mean over scores and tasks [95%]", "permutation p",
         f"until all tasks are at {half} [95%] (permutation p)",
         f"over separate ones in turn, at {half} [95%] (permutation p)",
         f"until all tasks are at {_top(plans)} [95%] (permutation p)",
         f"over separate ones in turn, at {_top(plans)} [95%] (permutation p)",
         f"how many get there, {half} and {_top(plans)}", "mean score at the end")
    ]  # fmt: skip
    some = False
    for plan in plans:
        result = analyse_joint(plan)
        thetas = measures.SOLVED, float(plan.thresholds[-1])
        done = joint.completion_table(result.every)
        scores = joint.score_table(result.every)
        scores = scores[scores["task"] == joint.SUITE].set_index("arm")
        means = result.speed_ups
        if len(means):
            means = means[means["task"] == joint.SUITE].set_index("arm")
        for curves in result.every:
            alone = curves.arm == joint.SEPARATE
            compared = [_DASH] * 6
            if not alone and result.separate is not None:
                mean = means.loc[curves.arm]
                e = Estimate(mean["log_ratio"], mean["low"], mean["high"], reason=mean["reason"])
                over = result.over(curves.arm)
                part = f" ({over})" if "without" in over else ""
                compared = [words.ratio(e, str(mean["limit"])) + part, words.p_value(mean["p_permutation"])]
                for theta in thetas:
                    ratios = completion_ratios(result.separate, curves, theta)
                    ratios = ratios[ratios["joint_mode"] == joint.AT_ONCE].set_index("separate_mode")
                    compared += [
                        words.ratio(Estimate(r["log_ratio"], r["low"], r["high"], reason=r["reason"]))
                        + f" ({words.p_value(r['p_permutation'])})"
                        for r in (ratios.loc[mode] for mode in (joint.LOCK_STEP, joint.IN_TURN))
                    ]
            mode = joint.LOCK_STEP if alone else joint.AT_ONCE
            ours = done[(done["arm"] == curves.arm) & (done["mode"] == mode)]
            reached = [int(ours.loc[np.isclose(ours["theta"], t), "reached"].item()) for t in thetas]
            some |= any(0 < n < curves.count for n in reached)
            score = scores.loc[curves.arm]
            rows.append(
                (
                    str(plan.plan["family"]),
                    curves.arm,
                    *compared,
                    " and ".join(map(str, reached)) + f" of {curves.count}",
                    words.score(
                        Estimate(score["score"], score["low"], score["high"], reason=score["reason"])
                    ),
                )
            )
    note = (
        "Where some get there and others do not, an interval of these times can be far too narrow; whether "
        "there is a difference, the permutation p still tells."
    )
    return "\n\n".join([table(rows), *[note] * some])


def runs(plans: Sequence[Analysis]) -> str:
    """What became of every planned run, and what it cost.

    Excluded runs are finished too, but their rows are not what the plan asks for. Of a joint plan the
    learning runs are counted once for each of their tasks.
    """
    rows: Table = [
        ("experiment", "runs planned", "finished", "diverged", "failed", "excluded", "missing",
         f"of the learning runs, not at {_top(plans)} by the budget", "control steps",
         "hours of processes")
    ]  # fmt: skip
    for plan in plans:
        total = flow(plan).iloc[-1]
        became = ("planned", "finished", "diverged", "failed", "excluded")
        if plan.kind == "joint":  # of whose runs each learns many tasks
            late = [np.isinf(c.arrivals[..., -1]).ravel() for c in analyse_joint(plan).every]
        else:
            late = [np.isinf(times[:, -1]) for times in plan.arrivals.values()]
        steps = float(plan.runs["steps"].sum())
        seconds = float(plan.runs["wall_seconds"].sum())
        rows.append(
            (
                plan.title,
                *(f"{int(total[key]):,}" for key in became),
                f"{int(total['missing'] + total['unfinished']):,}",
                f"{sum(int(x.sum()) for x in late):,} of {sum(map(len, late)):,}" if late else "–",
                f"{steps / 1e6:,.0f} million",
                f"{seconds / 3600:.1f}",
            )
        )
    joint_too = any(plan.kind == "joint" for plan in plans)
    note = "A network that learns all tasks counts once for each of them among the learning runs."
    return "\n\n".join([table(rows), *[note] * joint_too])


def forest(plans: Sequence[Analysis]) -> Figure:
    """Every held-out task of every family and the families' means, with the nearest task alone beside."""
    rows = []
    for plan in plans:
        own = forest_rows(plan.main, {"all_folds": "all", "not_yet_solved": "not solved at 0"})
        prefix = f"{plan.plan['family']}: "
        beside: dict[str, plots.ForestRow] = {}
        if (single := (plan.main.baseline, "single_source")) in plan.comparisons:
            of_single = forest_rows(plan.comparisons[single], {"all_folds": "all", "not_yet_solved": ""})
            beside = {row.label: row for row in of_single}
        for row in own:
            label = prefix + row.label if row.suite or len(plans) > 1 else row.label
            both = (row, beside.get(row.label))
            rows += [dataclasses.replace(each, label=label) for each in both if each is not None]
    return plots.forest(rows, note=MARKS)


def curves(plans: Sequence[Analysis]) -> Figure:
    """Mean learning curves over the tasks of each family, of the arms that are planned on all of them."""
    panels = []
    for plan in plans:
        bands, number = suite_bands(plan)
        if not bands:  # of one task there is no mean
            continue
        own = np.asarray(plan.plan["checkpoints"], float)
        title = f"{plan.plan['family']}, mean of {number} tasks"
        panels.append(
            plots.CurvePanel(title, bands, {}, dict.fromkeys(bands, own), float(plan.plan["budget"]))
        )
    if not panels:
        raise ValueError("no experiment here has learning curves of several tasks, of which to take a mean")
    longest = max((plan.plan for plan in plans), key=lambda plan: float(plan["budget"]))
    return plots.learning_curves(
        panels,
        longest["checkpoints"],
        longest["budget"],
        longest["thresholds"],
        x_label=f"control steps of a run, logarithmic from {longest['checkpoints'][1]:,} on",
    )


def distance(plans: Sequence[Analysis]) -> Figure:
    """Every held-out task of a family over its distance to the nearest task that was trained on."""
    (plan,) = plans
    points = distance_points(plan.main, measures.nearest_sources(plan.plan, plan.main.arm))
    return plots.distance(points, MARKS)


BLOCKS: Mapping[str, Callable[[Sequence[Analysis]], str]] = {
    "overview": overview,
    "starts": starts,
    "folds": folds,
    "arms": arms,
    "controls": controls,
    "codes": codes,
    "joint": together,
    "runs": runs,
}
"""Tables that can stand between marks."""
FIGURES: Mapping[str, tuple[str, Callable[[Sequence[Analysis]], Figure]]] = {
    "forest": ("Speed-up of every held-out task", forest),
    "curves": ("Learning curves, mean over the tasks of each family", curves),
    "distance": ("Speed-up and jumpstart over the distance to the nearest task trained on", distance),
}
"""Figures that can, by name; each with what it shows."""
OF_ONE = ("folds", "distance")
"""Those of which each experiment needs its own, as its tasks' names stand there alone."""


# --- what they are made of ---------------------------------------------------------------------------


def table(rows: Table) -> str:
    """A Markdown table, its first row the header."""
    # names are what a plan says
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    return markdown.table(cells[0], cells[1:])


def _ratio(found: SetResult) -> str:
    return words.ratio(found.log_ratio, found.limit)


def _top(plans: Sequence[Analysis]) -> str:
    """The highest θ."""
    return _theta(plans, -1)


def _theta(plans: Sequence[Analysis], index: int) -> str:
    return " or ".join(dict.fromkeys(f"θ = {plan.thresholds[index]:.2f}" for plan in plans))


def _start(fold: FoldResult) -> float:
    """Mean score of the arm at step 0; NaN without a run."""
    given = fold.measures.at_start[1]
    return float(np.mean(given)) if len(given) else math.nan


def _share(folds: Iterable[FoldResult], arm: int) -> str:
    """Share of the runs that arrive at the highest θ, in percent, with Wilson's interval."""
    return words.share(*words.arrived_share(folds, arm, -1))


def _part(found: SetResult, folds: Sequence[FoldResult]) -> str:
    """Of how many of the folds a mean is, where not of all."""
    few = len(found.estimable) < len(folds) and found.estimable
    return f" ({len(found.estimable)} of {len(folds)} tasks)" if few else ""


def _mixed(compared: Iterable[tuple[Analysis, Sequence[Comparison]]]) -> list[str]:
    """A warning of tasks that some runs of an arm learn and others do not, if there are any."""
    found: dict[str, dict[str, None]] = {}
    for plan, comparisons in compared:
        for f in (f.measures for c in comparisons for f in c.folds):
            for arm, _ in f.mixed if f.complete else ():
                of_task = found.setdefault(f"{plan.plan['family']} `{f.task}`", {})
                of_task[plots.arm_label(arm)] = None
    if not found:
        return []
    told = "; ".join(f"{task} ({', '.join(arms)})" for task, arms in found.items())
    return [
        f"Of some arms only some runs arrive within the budget: {told}. An interval of such a task can be "
        "far too narrow; whether there is a difference, the permutation p still tells."
    ]


def _pays(plan: Analysis) -> str:
    """New tasks until pretraining has paid for itself: the median task, and the ends of their range.

    A task whose saving may be 0, by its Fieller interval, is without bound.
    """
    complete = [f.measures for f in plan.main.folds if f.measures.complete]
    found = measures.break_even(complete, plan.plan, float(plan.plan["break_even_threshold"]))
    known = found.dropna(subset="uses")
    if known.empty:
        return "–"
    uses = known["uses"].where(np.isfinite(known["high"]), math.inf).tolist()
    ends = (median(uses), min(uses), max(uses))
    middle, low, high = (f"{x:.1f}" if x < math.inf else "unbounded" for x in ends)
    part = f", {len(known)} of {len(plan.main.folds)} tasks" if len(known) < len(plan.main.folds) else ""
    return f"{middle} ({low} to {high}{part})"


def _controls(plan: Analysis) -> list[Comparison]:
    """Transfer and every control over scratch, on the folds of the controls."""
    planned = [c for c in plan.against_scratch if c.arm in CONTROLS]
    if not planned:
        return []
    shared = {f.measures.fold for f in planned[0].folds}
    of_folds = {key: curves for key, curves in plan.curves.items() if key[0] in shared}
    main = plan.main
    return [compare(plan.plan, of_folds, main.baseline, main.arm), *planned]


# --- into the page -----------------------------------------------------------------------------------


def fill(path: Path) -> list[Path]:
    """Writes every block of a Markdown page anew, and the figures that it asks for.

    Args:
        path: of the page.

    Returns:
        What was written, the page first; nothing where it has no marks.

    Raises:
        ValueError: if marks are not in order, ask for what there is not, or lead out of the page's
            directory; if a plan was changed after it was written.
        StoreError: if an experiment cannot be read.
    """
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text and END not in text:
        return []
    lines, skipping = [], False
    figures: dict[Path, bytes] = {}
    known: dict[Path, Analysis] = {}
    for line in text.splitlines():
        if line == END:
            if not skipping:
                raise ValueError(f"{path}: {END} without a beginning")
            skipping = False
        elif line.startswith(BEGIN):
            if skipping:
                raise ValueError(f"{path}: {line} before the end of the block above")
            lines += [line, "", _block(path, line, known, figures), ""]
            skipping = True
        if not skipping:
            lines.append(line)
    if skipping:
        raise ValueError(f"{path}: the last block has no {END}")
    # only now: a page with a mistake keeps the figures that it has
    for file, figure in figures.items():
        write_whole(file, figure)
    write_whole(path, ("\n".join(lines) + "\n").encode())
    return [path, *figures]


def _block(path: Path, line: str, known: dict[Path, Analysis], figures: dict[Path, bytes]) -> str:
    """What stands below a mark.

    Args:
        path: of the page.
        line: the mark.
        known: experiments that were read for other marks; those that this one needs are added.
        figures: what is to be written beside the page; one is added if the mark asks for it.
    """
    mark = MARK.match(line)
    possible = [*BLOCKS, *FIGURES]
    if mark is None or mark["what"] not in possible:
        raise ValueError(
            f"{path}: {line!r} is none of {BEGIN} WHAT DIR ... -->, WHAT one of {', '.join(possible)}"
        )
    where = mark["where"].split()
    for name in where:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{path}: {name} is not below {path.parent}")
    what, plans = mark["what"], []
    if what in OF_ONE and len(where) > 1:
        raise ValueError(f"{path}: {line!r} asks for tasks of several experiments: give each its own mark")
    for name in where:
        directory = (path.parent / name).resolve()
        if directory not in known:
            Store(directory).check_frozen()
            known[directory] = analyse(directory)
        plan = known[directory]
        if what != "runs" and (plan.kind == "joint") != (what == "joint"):
            raise ValueError(f"{path}: {line!r} cannot be made of {name}, a plan of kind {plan.kind}")
        plans.append(plan)
    # a table that is not of a whole, frozen, unchanged plan says so, as the report's title does
    standing = [f"**{p.title}: {', '.join(p.marks)}.**" for p in plans if p.marks]
    if what in BLOCKS:
        return "\n\n".join([*standing, BLOCKS[what](plans)])
    shows, draw = FIGURES[what]
    same = sum(file.name.startswith(f"{path.stem.lower()}-{what}") for file in figures)
    file = path.with_name(f"{path.stem.lower()}-{what}{f'-{same + 1}' * bool(same)}.svg")
    figures[file] = plots.svg(draw(plans))
    return "\n\n".join([*standing, f"![{shows}]({file.name})"])
