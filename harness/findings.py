"""What several full experiments found, as tables and figures inside a Markdown page.

A page says where, between two marks on lines of their own, and this fills in what stands there::

    <!-- findings: overview biped octopus -->
    <!-- /findings -->

The first word says what (one of :data:`BLOCKS` or :data:`FIGURES`), the others which experiments, as
directories beside or below the page. So the prose is written by hand, and all that stands below a mark
follows from the rows.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import scipy
from matplotlib.figure import Figure

from harness import joint, measures, plots
from harness.report import Analysis, analyse, words
from harness.report.analysis import TREATMENT, Comparison, FoldResult, SetResult, compare, flow, rng
from harness.report.sections_curves import suite_bands
from harness.report.sections_joint import analyse_joint
from harness.schema import CONTROLS
from harness.statistics import Estimate

BEGIN, END = "<!-- findings:", "<!-- /findings -->"
MARK = re.compile(rf"^{BEGIN} (?P<what>[\w-]+)(?P<where>(?: [\w./-]+)+) -->$")

Table = list[Sequence[str]]


# --- what the blocks say -----------------------------------------------------------------------------


def overview(plans: Sequence[Analysis]) -> str:
    """The answer, a line for each family."""
    rows: Table = [
        ("family", "tasks", "solved at step 0", "speed-up, all tasks [95%]", "permutation p",
         "speed-up, those not solved at step 0 [95%]", f"reach {_top(plans)}: scratch", "transfer",
         "new tasks until pretraining pays")
    ]  # fmt: skip
    for plan in plans:
        main = plan.main
        all_folds, unsolved = (main.sets[key] for key in ("all_folds", "not_yet_solved"))
        solved = sum(f.measures.solved for f in main.folds)
        rows.append(
            (
                f"**{plan.plan['family']}**",
                str(len(main.folds)),
                f"{solved} of {len(main.folds)}",
                f"**{_ratio(all_folds)}**",
                words.p_value(all_folds.p),
                _ratio(unsolved) if unsolved.folds else "– (all are solved)",
                *(_share(main.folds, arm) for arm in (0, 1)),
                _pays(plan),
            )
        )
    return table(rows)


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
                words.ratio(f.log_ratio, f.measures.limit),
                words.p_value(f.p_holm),
                *(_share([f], arm) for arm in (0, 1)),
                f.verdict + ", solved at step 0" * f.measures.solved,
            )
        )
    distances = [nearest.loc[f.measures.fold, "distance"] for f in main.folds]
    return f"{table(rows)}\n\n{_by_distance(main.folds, distances)}"


def _by_distance(folds: Sequence[FoldResult], distances: Sequence[float]) -> str:
    """Rank correlations with distance, as a sentence: of the speed-up, and of the score at step 0."""
    found = []
    for name, values in (
        ("the speed-up", [f.log_ratio.value for f in folds]),
        ("the score at step 0", [_start(f) for f in folds]),
    ):
        known = ~np.isnan(values)
        few = known.sum() < 4 or len({v for v in values if not math.isnan(v)}) < 2
        if few:
            found.append(f"{name}: too few tasks")
            continue
        x, y = np.asarray(distances)[known], np.asarray(values)[known]
        rho = scipy.stats.spearmanr(x, y).statistic
        p = scipy.stats.permutation_test(
            (x,),
            lambda permuted, y=y: scipy.stats.spearmanr(permuted, y).statistic,
            permutation_type="pairings",
            n_resamples=9999,
            rng=rng("distance", name),
        ).pvalue
        found.append(f"{name} {words.number(rho)} (p {words.p_is(float(p))}, {known.sum()} tasks)")
    return f"Spearman's rank correlation with distance: {'; '.join(found)}."


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
        (
            "family",
            "steps of",
            "over steps of",
            "ratio [95%]",
            "permutation p",
            "faster",
            "slower",
            "what it shows",
        )
    ]
    for plan in plans:
        for pair, meaning in MEANINGS.items():
            if pair not in plan.comparisons or pair[1] in CONTROLS:
                continue
            found = plan.comparisons[pair]
            suite = found.sets["all_folds"]
            verdicts = [f.verdict for f in found.folds]
            rows.append(
                (
                    str(plan.plan["family"]),
                    *(plots.arm_label(arm) for arm in pair),
                    _ratio(suite),
                    words.p_value(suite.p),
                    *(f"{verdicts.count(v)} of {len(verdicts)}" for v in ("positive", "negative")),
                    meaning,
                )
            )
    return table(rows)


def controls(plans: Sequence[Analysis]) -> str:
    """The controls over scratch, with transfer on the same folds beside them."""
    rows: Table = [
        ("family", "folds", "seeds", "arm", "speed-up [95%]", "permutation p", "score at step 0")
    ]
    for plan in plans:
        for found in _controls(plan):
            suite = found.sets["all_folds"]
            rows.append(
                (
                    str(plan.plan["family"]),
                    ", ".join(f"`{f.measures.task}`" for f in found.folds),
                    found.n,
                    plots.arm_label(found.arm),
                    _ratio(suite),
                    words.p_value(suite.p),
                    words.number(float(np.mean([_start(f) for f in found.folds]))),
                )
            )
    return table(rows)


def codes(plans: Sequence[Analysis]) -> str:
    """What pretrained networks score on the held-out task at step 0, by the code that they are told."""
    told = ("true", "mean", "wrong")
    rows: Table = [("family", *(f"{code} code" for code in told))]
    for plan in plans:
        scores = measures.code_scores(plan.evaluations, plan.runs, plan.plan)
        means = scores[scores["arm"] == TREATMENT].groupby("code")["score"].mean()
        rows.append((str(plan.plan["family"]), *(words.number(means.get(code, math.nan)) for code in told)))
    return table(rows)


def together(plans: Sequence[Analysis]) -> str:
    """Joint training against a network for each task."""
    rows: Table = [
        ("family", "networks", "speed-up over separate networks [95%]", "p", "permutation p",
         f"all tasks at {_top(plans)} at one checkpoint")
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
                    words.p_value(mean["p"]),
                    words.p_value(mean["p_permutation"]),
                    f"{once['reached']} of {once['n']}",
                )
            )
    return table(rows)


def runs(plans: Sequence[Analysis]) -> str:
    """What became of every planned run, and what it cost."""
    rows: Table = [
        ("experiment", "runs planned", "finished", "diverged", "failed", "excluded", "missing",
         f"of the learning runs, not at {_top(plans)} by B", "control steps", "hours of one core")
    ]  # fmt: skip
    for plan in plans:
        total = flow(plan).iloc[-1]
        became = ("planned", "finished", "diverged", "failed", "excluded")
        late = [np.isinf(times[:, -1]) for times in plan.arrivals.values()]
        steps = sum(run["steps"] for run in plan.plan["runs"])
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
        family = str(plan.plan["family"])
        rows += [
            plots.ForestRow(
                f.measures.task,
                words.ratio_of(f.log_ratio),
                tuple(c.count for c in f.measures.curves),
                words.short_ratio(f.log_ratio, f.measures.limit),
                f.mark,
                limit=f.measures.limit,
            )
            for f in plan.folds
        ]
        rows += [
            plots.ForestRow(
                f"{family}: {'all' if s.key == 'all_folds' else 'not solved at 0'}",
                words.ratio_of(s.log_ratio),
                (len(s.estimable),),
                words.short_ratio(s.log_ratio, s.limit),
                suite=True,
                limit=s.limit,
            )
            for s in plan.sets.values()
            if s.key == "all_folds" or 0 < len(s.folds) < len(plan.folds)
        ]
    return plots.forest(rows)


def curves(plans: Sequence[Analysis]) -> Figure:
    """Mean learning curves over the tasks of each family, of the arms that are planned on all of them."""
    panels = []
    for plan in plans:
        bands, number = suite_bands(plan)
        own = np.asarray(plan.plan["checkpoints"], float)
        title = f"{plan.plan['family']}, mean of {number} tasks"
        panels.append(
            plots.CurvePanel(title, bands, {}, dict.fromkeys(bands, own), float(plan.plan["budget"]))
        )
    longest = max((plan.plan for plan in plans), key=lambda plan: float(plan["budget"]))
    return plots.learning_curves(panels, longest["checkpoints"], longest["budget"], longest["thresholds"])


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
}
"""Figures that can, by name; each with what it shows."""


# --- what they are made of ---------------------------------------------------------------------------


def table(rows: Table) -> str:
    """A Markdown table, its first row the header."""
    # names are what a plan says
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]])


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
    """Share of the runs that arrive at the highest θ, in percent."""
    share, _ = words.arrived_share(folds, arm, -1)
    return "–" if math.isnan(share) else f"{share:.0%}"


def _pays(plan: Analysis) -> str:
    """New tasks until pretraining has paid for itself: the median task, and the ends of their range."""
    complete = [f.measures for f in plan.main.folds if f.measures.complete]
    found = measures.break_even(complete, plan.plan, float(plan.plan["break_even_threshold"]))
    # a saving below 0 never pays
    uses = found["uses"].where(found["uses"] > 0, math.inf).dropna()
    if uses.empty:
        return "–"
    middle, low, high = (f"{x:.1f}" if x < math.inf else "never" for x in uses.quantile([0.5, 0.0, 1.0],
                         interpolation="higher"))  # fmt: skip
    return f"{middle} ({low} to {high})"


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
            directory.
        StoreError: if an experiment cannot be read.
    """
    text = path.read_text(encoding="utf-8")
    lines, written, skipping = [], [path], False
    for line in text.splitlines():
        if line == END:
            if not skipping:
                raise ValueError(f"{path}: {END} without a beginning")
            skipping = False
        elif line.startswith(BEGIN):
            if skipping:
                raise ValueError(f"{path}: {line} before the end of the block above")
            content, figures = _block(path, line)
            lines += [line, "", content, ""]
            written += figures
            skipping = True
        if not skipping:
            lines.append(line)
    if skipping:
        raise ValueError(f"{path}: the last block has no {END}")
    if BEGIN not in text:
        return []
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return written


def _block(path: Path, line: str) -> tuple[str, list[Path]]:
    mark = MARK.match(line)
    known = [*BLOCKS, *FIGURES]
    if mark is None or mark["what"] not in known:
        raise ValueError(
            f"{path}: {line!r} is none of {BEGIN} WHAT DIR ... -->, WHAT one of {', '.join(known)}"
        )
    where = mark["where"].split()
    for name in where:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{path}: {name} is not below {path.parent}")
    plans = [_analysis((path.parent / name).resolve()) for name in where]
    what = mark["what"]
    if what in BLOCKS:
        return BLOCKS[what](plans), []
    shows, draw = FIGURES[what]
    file = path.with_name(f"{path.stem.lower()}-{what}.svg")
    file.write_bytes(plots.svg(draw(plans)))
    return f"![{shows}]({file.name})", [file]


@functools.lru_cache(maxsize=8)
def _analysis(directory: Path) -> Analysis:
    return analyse(directory)
