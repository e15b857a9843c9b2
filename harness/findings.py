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

import numpy as np
import scipy
from matplotlib.figure import Figure

from harness import joint, markdown, measures, plots
from harness.report import Analysis, analyse, words
from harness.report.analysis import TREATMENT, Comparison, FoldResult, SetResult, compare, flow, rng
from harness.report.sections_curves import suite_bands
from harness.report.sections_distance import distance_points
from harness.report.sections_joint import analyse_joint
from harness.report.sections_opening import forest_rows
from harness.report.write import write_whole
from harness.schema import CONTROLS
from harness.statistics import Estimate
from harness.store import Store

BEGIN, END = "<!-- findings:", "<!-- /findings -->"
MARK = re.compile(rf"^{BEGIN} (?P<what>[\w-]+)(?P<where>(?: [\w./-]+)+) -->$")

Table = list[Sequence[str]]


# --- what the blocks say -----------------------------------------------------------------------------


def overview(plans: Sequence[Analysis]) -> str:
    """The answer, a line for each family."""
    paid = " or ".join(dict.fromkeys(f"θ = {plan.plan['break_even_threshold']:.2f}" for plan in plans))
    rows: Table = [
        ("family", "tasks", "solved at step 0", "speed-up, all tasks [95%]", "permutation p",
         "speed-up, those not solved at step 0 [95%]", f"reach {_top(plans)}: scratch", "transfer",
         f"new tasks until pretraining pays, at {paid}")
    ]  # fmt: skip
    for plan in plans:
        main = plan.main
        all_folds, unsolved = (main.sets[key] for key in ("all_folds", "not_yet_solved"))
        tried = [f for f in main.folds if f.measures.complete]
        solved = sum(f.measures.solved for f in tried)
        rows.append(
            (
                f"**{plan.plan['family']}**",
                str(len(main.folds)),
                f"{solved} of {len(tried)}",
                f"**{_ratio(all_folds)}**{_part(all_folds, main.folds)}",
                words.p_value(all_folds.p),
                "– (all are solved)" if solved == len(main.folds) else _ratio(unsolved),
                *(_share(main.folds, arm) for arm in (0, 1)),
                _pays(plan),
            )
        )
    return "\n\n".join([table(rows), *_mixed(plans)])


def folds(plans: Sequence[Analysis]) -> str:
    """Every held-out task of a family, the nearest to its sources first."""
    (plan,) = plans
    main = plan.main
    nearest = measures.nearest_sources(plan.plan, main.arm).set_index("fold")
    rows: Table = [
        ("held out", "distance to the nearest", "score at step 0", "speed-up [95%]", "Holm p",
         f"reach {_top(plans)}: scratch", "transfer", "verdict")
    ]  # fmt: skip
    for f in sorted(main.folds, key=lambda f: nearest.loc[f.measures.fold, "distance"]):
        near = nearest.loc[f.measures.fold]
        rows.append(
            (
                f"`{f.measures.task}`",
                f"{near['distance']:.2f} (`{near['nearest']}`)",
                words.number(_start(f)),
                # a claim of one among many needs the interval that holds for all of them (PROTOCOL §4.10)
                f"{words.ratio(f.bonferroni, f.measures.limit)} (Bonferroni)"
                if f.negative
                else words.ratio(f.log_ratio, f.measures.limit),
                words.p_value(f.p_holm),
                *(_share([f], arm) for arm in (0, 1)),
                f.verdict + ", solved at step 0" * f.measures.solved if f.measures.complete else "no data",
            )
        )
    distances = [nearest.loc[f.measures.fold, "distance"] for f in main.folds]
    return "\n\n".join([table(rows), _by_distance(main.folds, distances), *_mixed(plans)])


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
         f"reach {_top(plans)}: the first", "the second", "what it shows")
    ]  # fmt: skip
    shared = False
    for plan in plans:
        for pair, meaning in MEANINGS.items():
            if pair not in plan.comparisons:
                continue
            found = plan.comparisons[pair]
            suite = found.sets["all_folds"]
            verdicts = [f.verdict for f in found.folds if f.measures.complete]
            dependent = any(_folds_share_networks(plan, arm) for arm in pair)
            shared |= dependent
            rows.append(
                (
                    str(plan.plan["family"]),
                    *(plots.arm_label(arm) for arm in pair),
                    f"{_ratio(suite)}{_part(suite, found.folds)}{' †' * dependent}",
                    words.p_value(suite.p),
                    *(f"{verdicts.count(v)} of {len(verdicts)}" for v in ("positive", "negative")),
                    *(_share(found.folds, side) for side in (0, 1)),
                    meaning,
                )
            )
    note = "† Approximate: several tasks learn from the same networks, so that the interval is too narrow."
    return "\n\n".join([table(rows), *[note] * shared])


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
         f"reach {_top(plans)}: scratch", "the arm")
    ]  # fmt: skip
    for plan in plans:
        for found in _controls(plan):
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
    return table(rows)


def codes(plans: Sequence[Analysis]) -> str:
    """What pretrained networks score on the held-out task at step 0, by the code that they are told."""
    told = ("true", "mean", "wrong")
    rows: Table = [
        ("family", *(f"{code} code" for code in told), *(f"true - {code} [95%]" for code in told[1:]))
    ]
    for plan in plans:
        scores = measures.code_scores(plan.evaluations, plan.runs, plan.plan)
        scores = scores[scores["arm"] == TREATMENT]
        # every task counts once, however many of its networks there are
        means = scores.groupby(["code", "fold"])["score"].mean().groupby("code").mean()
        worth = measures.code_differences(scores)
        worth = worth[worth["fold"] == -1].set_index("code")
        cells = []
        for code in told[1:]:
            if code not in worth.index:
                cells.append("–")
                continue
            mean = worth.loc[code]
            found = Estimate(mean["difference"], mean["low"], mean["high"], reason=mean["reason"])
            cells.append(words.difference(found))
        rows.append(
            (str(plan.plan["family"]), *(words.number(means.get(code, math.nan)) for code in told), *cells)
        )
    return table(rows)


def together(plans: Sequence[Analysis]) -> str:
    """Joint training against a network for each task."""
    rows: Table = [
        ("family", "networks", "speed-up over separate networks in lock-step [95%]", "over", "p",
         "permutation p", f"all tasks at {_top(plans)} at one checkpoint")
    ]  # fmt: skip
    for plan in plans:
        result = analyse_joint(plan)
        means = result.speed_ups[result.speed_ups["task"] == joint.SUITE].set_index("arm")
        done = joint.completion_table(result.every)
        done = done[np.isclose(done["theta"], plan.thresholds[-1])]
        for curves in result.every:
            if curves.arm == joint.SEPARATE:
                continue
            mean = means.loc[curves.arm]
            e = Estimate(mean["log_ratio"], mean["low"], mean["high"], reason=mean["reason"])
            once = done[(done["arm"] == curves.arm) & (done["mode"] == joint.AT_ONCE)].iloc[0]
            rows.append(
                (
                    str(plan.plan["family"]),
                    curves.arm,
                    words.ratio(e, str(mean["limit"])),
                    result.over(curves.arm),
                    words.p_value(mean["p"]),
                    words.p_value(mean["p_permutation"]),
                    f"{once['reached']} of {once['n']}",
                )
            )
    return table(rows)


def runs(plans: Sequence[Analysis]) -> str:
    """What became of every planned run, and what it cost.

    Excluded runs are finished too, but their rows are not what the plan asks for. Of a joint plan the
    learning runs are counted once for each of their tasks.
    """
    rows: Table = [
        ("experiment", "runs planned", "finished", "diverged", "failed", "excluded", "missing",
         f"of the learning runs, not at {_top(plans)} by B", "control steps", "hours of processes")
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
                str(plan.plan["title"]),
                *(f"{int(total[key]):,}" for key in became),
                f"{int(total['missing'] + total['unfinished']):,}",
                f"{sum(int(x.sum()) for x in late):,} of {sum(map(len, late)):,}" if late else "–",
                f"{steps / 1e6:,.0f} million",
                f"{seconds / 3600:.1f}",
            )
        )
    return table(rows)


def forest(plans: Sequence[Analysis]) -> Figure:
    """Every held-out task of every family, and the families' means."""
    rows = []
    for plan in plans:
        names = {"all_folds": "all", "not_yet_solved": "not solved at 0"}
        own = forest_rows(plan.main, names)
        prefix = f"{plan.plan['family']}: "
        rows += [
            dataclasses.replace(row, label=prefix + row.label) if row.suite or len(plans) > 1 else row
            for row in own
        ]
    return plots.forest(rows)


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
    longest = max((plan.plan for plan in plans), key=lambda plan: float(plan["budget"]))
    return plots.learning_curves(panels, longest["checkpoints"], longest["budget"], longest["thresholds"])


def distance(plans: Sequence[Analysis]) -> Figure:
    """Every held-out task of a family over its distance to the nearest task that was trained on."""
    (plan,) = plans
    return plots.distance(distance_points(plan.main, measures.nearest_sources(plan.plan, plan.main.arm)))


BLOCKS: Mapping[str, Callable[[Sequence[Analysis]], str]] = {
    "overview": overview,
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
    return " or ".join(dict.fromkeys(f"θ = {plan.thresholds[-1]:.2f}" for plan in plans))


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


def _mixed(plans: Iterable[Analysis]) -> list[str]:
    """A warning of tasks that some runs of an arm learn and others do not, if there are any."""
    found = [
        f"{plan.plan['family']} `{f.measures.task}` ({', '.join(plots.arm_label(arm) for arm, _ in mixed)})"
        for plan in plans
        for f in plan.main.folds
        if f.measures.complete and (mixed := f.measures.mixed)
    ]
    if not found:
        return []
    return [
        f"Some runs arrive within the budget and others do not, so that intervals cover less than they say "
        f"and the permutation p is the surer guide: {'; '.join(found)}."
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
    uses = known["uses"].where(np.isfinite(known["high"]), math.inf)
    middle, low, high = (f"{x:.1f}" if x < math.inf else "unbounded" for x in uses.quantile([0.5, 0.0, 1.0],
                         interpolation="higher"))  # fmt: skip
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
    standing = [f"**{p.plan['title']}: {', '.join(p.marks)}.**" for p in plans if p.marks]
    if what in BLOCKS:
        return "\n\n".join([*standing, BLOCKS[what](plans)])
    shows, draw = FIGURES[what]
    same = sum(file.name.startswith(f"{path.stem.lower()}-{what}") for file in figures)
    file = path.with_name(f"{path.stem.lower()}-{what}{f'-{same + 1}' * bool(same)}.svg")
    figures[file] = plots.svg(draw(plans))
    return "\n\n".join([*standing, f"![{shows}]({file.name})"])
