"""What the report opens with: the flow of runs, the headline, warnings, and the speed-up per task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from harness import measures, plots, statistics
from harness.report import words
from harness.report.agent import departures
from harness.report.analysis import Analysis, Comparison, SetResult, flow, tested
from harness.report.page import Cell, Exhibit, Section, bullets, details, escape, paragraph, table
from harness.statistics import Estimate

SHOWN_WARNINGS = 12
"""Warnings that are not folded away; a matrix may have hundreds."""
SHOWN_RUNS = 6
"""Failed and diverged runs that are named, of each; there may be hundreds."""
DIVERGED_NOTE = (
    "A diverged run is a result and stays in. Excluded are complete runs whose rows are not what the plan "
    "asks for."
)


def flow_of_runs(analysis: Analysis) -> Section:
    """What became of every planned run."""
    counts = flow(analysis)
    total = counts.iloc[-1]
    names = ("planned", "started", "finished", "diverged", "failed", "unfinished", "missing", "excluded")
    line = "Runs: " + ", ".join(f"{total[name]} {name}" for name in names) + "."
    rows = [[_named(c) for c in row] for row in counts.to_numpy().tolist()]
    by_arm = table(list(counts.columns), rows[:-1], "runs by phase and arm", rows[-1])
    return Section(
        "Flow of runs",
        [
            f'<p class="flow">{escape(line)}</p>',
            *named_runs(analysis),
            details("By phase and arm", by_arm + paragraph(DIVERGED_NOTE)),
        ],
    )


def named_runs(analysis: Analysis) -> list[str]:
    """The runs that failed, with what they failed of, and those that diverged, if there are any."""
    failed = [f"{run}: {error}" for run, error in analysis.errors.items()]
    statuses = analysis.runs["status"]
    diverged = analysis.runs.loc[statuses == "diverged", "run"].tolist()
    found = []
    if failed:
        found += [paragraph("Failed, with the last line of the error:"), bullets(_first(failed))]
    if diverged:
        found.append(paragraph(f"Diverged: {', '.join(_first(diverged))}."))
    return found


def _first(names: Sequence[str]) -> list[str]:
    """A handful of names, and how many more there are."""
    more = len(names) - SHOWN_RUNS
    return [*names[:SHOWN_RUNS], *[f"and {more} more"] * (more > 0)]


def _named(value: object) -> Cell | object:
    return Cell(f"{value:,}", value) if isinstance(value, int) else value


def headline(analysis: Analysis) -> Section:
    """Section 1: the primary measure with its interval, p and the success shares."""
    chosen, main = analysis.headline, analysis.main
    estimate = chosen.log_ratio
    big, beside = "–", ""
    if not math.isnan(estimate.value):
        e = estimate.exp()
        prefix = {"at least": "at least ", "at most": "at most ", "unresolved": "about "}
        big = f"{prefix.get(chosen.limit, '')}{words.factor(e.value)}×"
        beside = (
            f"no interval: {e.reason}"
            if e.reason
            else f"95% t interval [{words.factor(e.low)}, {words.factor(e.high)}], {e.df:.1f} degrees of "
            f"freedom, t-test p {words.p_is(e.p)}, permutation p {words.p_is(chosen.p)}"
        )
    label = (
        f"speed-up ρ̄ of {main.arm} over {main.baseline}, {chosen.name}, mean of {len(chosen.estimable)} of "
        f"{len(chosen.folds)} tasks"
    )
    if apart := departures(analysis.plan):
        label += f"; {', '.join(apart)}"
    missing = [f for f in chosen.folds if math.isnan(f.log_ratio.value)]
    lines = [
        f"Not estimable for {f.measures.task}: {f.log_ratio.reason.removeprefix('not estimable: ')}"
        for f in missing
    ]
    for i in analysis.shown:
        both = [words.arrived(chosen.folds, arm, i) for arm in (0, 1)]
        lines.append(
            f"Runs that hold θ = {analysis.thresholds[i]:.2f} within the budget: "
            f"{main.baseline} {both[0]}, {main.arm} {both[1]}"
        )
    lines += filter(None, [words.between_checkpoints(analysis)])
    return Section(
        "Headline",
        [
            f'<p class="label">{escape(label)}</p><p class="big">{escape(big)}</p>',
            f"<p>{escape(beside)}</p>" if beside else "",
            f"<p><strong>{escape(words.verdict(chosen, main.arm, analysis.marks))}</strong></p>",
            bullets(lines),
        ],
        1,
        "headline",
    )


def read_first(analysis: Analysis) -> list[Section]:
    """What a reader must know before believing the numbers; no section where there is nothing."""
    found = words.warnings(analysis)
    if not found:
        return []
    parts = [bullets(found[:SHOWN_WARNINGS])]
    if len(found) > SHOWN_WARNINGS:
        rest = found[SHOWN_WARNINGS:]
        parts.append(details(f"{len(rest)} more", bullets(rest)))
    return [Section("Read this first", parts, look="warnings")]


def per_task(analysis: Analysis) -> Section:
    """Section 2: the forest plot, the sets of folds and the table of folds."""
    main = analysis.main
    top = analysis.shown[-1]
    both = (main.baseline, main.arm)
    gaps = [
        measures.success_differences([f.measures for f in main.folds], analysis.thresholds[i])
        for i in analysis.shown
    ]
    rows = [
        [
            f.measures.task,
            f.n,
            words.ratio_cell(f.log_ratio, f.measures.limit),
            words.p_cell(f.p),
            words.p_cell(f.p_holm),
            f.verdict,
            f.mark,
            *(words.arrived_cell([f], arm, top) for arm in (0, 1)),
        ]
        for f in analysis.folds
    ]
    # what is read seldom is folded away, so that the verdict stands beside the number
    others = [i for i in analysis.shown if i != top]
    more = [
        [
            f.measures.task,
            words.ratio_cell(f.bonferroni, f.measures.limit),
            *(words.arrived_cell([f], arm, i) for i in others for arm in (0, 1)),
            *(words.difference_cell(gap[row]) for gap in gaps),
        ]
        for row, f in enumerate(analysis.folds)
    ]
    names = [f"difference at θ={analysis.thresholds[i]:.2f} [95%]" for i in analysis.shown]
    more_table = table(
        ["held-out task", "ρ̄ [Bonferroni interval]", *arrived_names(analysis, both, others), *names],
        more,
        "Bonferroni intervals and success at other thresholds",
    )
    return Section(
        "Speed-up per task",
        [
            forest(analysis),
            table(
                ["held-out task", "n", "ρ̄ [95% t interval]", "permutation p", "Holm", "verdict", "mark",
                 *arrived_names(analysis, both, [top])],
                rows,
                "speed-up of every held-out task",
            ),
            details("Bonferroni intervals and success at other thresholds", more_table),
            paragraph(
                "Shares are runs arrived of runs trained or, where a pretraining was fine-tuned several "
                "times, the mean of the pretrainings' shares, with 95% Wilson intervals over n; their "
                f"differences, {main.arm} − {main.baseline}, have Newcombe's. Positive "
                "and negative transfer are claimed where the Holm-adjusted p is below .05; the Bonferroni "
                "intervals hold for all tasks at once. “Inconclusive” is no claim that nothing is "
                "transferred. " + words.no_verdict(tested(analysis))
            ),
            *sets(analysis),
        ],
        2,
    )  # fmt: skip


def arrived_names(analysis: Analysis, arms: Sequence[str], thresholds: Sequence[int]) -> list[str]:
    """Headers of columns with the success of some arms at some thresholds, given by their index."""
    return [f"{arm}, arrived at θ={analysis.thresholds[i]:.2f}" for i in thresholds for arm in arms]


def sets(analysis: Analysis) -> list[str]:
    """ρ̄ over the sets of folds, what it says of tasks like these, and whether there is none."""
    main = analysis.main
    rows = []
    for key, result in analysis.sets.items():
        name = result.name + (" (headline)" if key == analysis.plan["headline"] else "")
        flip = statistics.sign_flip([f.log_ratio.value for f in result.estimable])
        rows.append(
            [
                name,
                f"{len(result.estimable)} of {len(result.folds)}",
                words.ratio_cell(result.log_ratio, result.limit),
                Cell(_flip(flip), flip.value),
                words.p_cell(result.p),
                words.p_cell(flip.p),
                *(words.arrived_cell(result.folds, arm, analysis.shown[-1]) for arm in (0, 1)),
                words.p_cell(result.log_ratio.p),
                words.number_cell(math.nan if result.log_ratio.reason else result.log_ratio.df, 1),
            ]
        )
    # the plan's headline first
    rows.sort(key=lambda row: "(headline)" not in str(row[0]))
    solved = [f.measures.task for f in analysis.folds if f.measures.solved]
    listed = ", ".join(solved) if solved else "none"
    return [
        "<h3>Over sets of tasks</h3>",
        table(
            ["set", "tasks", "ρ̄ [95% t interval]", "tasks like these [95%]", "permutation p", "sign-flip p",
             *arrived_names(analysis, (main.baseline, main.arm), analysis.shown[-1:]), "t-test p", "df"],
            rows,
            "speed-up over sets of tasks",
        ),
        f"<p>Solved at step 0, g<sub>{escape(main.arm)}</sub>(0) ≥ {measures.SOLVED} (generalisation): "
        f"<strong>{escape(listed)}</strong>.</p>",
        paragraph(
            "The interval, the t test and the permutation test speak of these tasks. The sign-flip test "
            "speaks of tasks like these, approximately: folds share training tasks, and with fewer than "
            "six it cannot fall below .05."
        ),
        paragraph(absence(analysis)),
    ]  # fmt: skip


def _flip(estimate: Estimate) -> str:
    return "–" if estimate.reason else words.ratio(estimate)


def absence(analysis: Analysis) -> str:
    """Whether two one-sided tests show that transfer changes nothing, as a sentence."""
    # plans of the first format name no margin
    margin = math.log(analysis.plan.get("equivalence", statistics.EQUIVALENT))
    result = statistics.tost([f.log_ratio for f in analysis.headline.folds], margin)
    within = f"within a factor {math.exp(margin):.3g} of 1"
    if result.reason:
        return f"Whether the suite mean is {within} cannot be tested: {result.reason}."
    shown = f"two one-sided tests give p {words.p_is(result.p)}"
    if result.p < 0.05:
        return f"The suite mean is {within}: {shown}. Transfer is shown to make no difference that matters."
    return f"That the suite mean is {within} is not shown: {shown}. No claim of absent transfer is made."


def forest_rows(main: Comparison, names: Mapping[str, str]) -> list[plots.ForestRow]:
    """Rows of a forest plot: every task, and the means over the sets of tasks.

    Args:
        main: the comparison.
        names: labels of the sets, by their keys.
    """
    rows = [
        plots.ForestRow(
            f.measures.task,
            words.ratio_of(f.log_ratio),
            tuple(c.count for c in f.measures.curves),
            words.short_ratio(f.log_ratio, f.measures.limit),
            f.mark,
            arm=main.arm,
            limit=f.measures.limit,
        )
        for f in main.folds
    ]
    return rows + [
        plots.ForestRow(
            names[s.key],
            words.ratio_of(s.log_ratio),
            (len(s.estimable),),
            words.short_ratio(s.log_ratio, s.limit),
            suite=True,
            arm=main.arm,
            limit=s.limit,
        )
        for s in _forest_sets(main)
    ]


def _forest_sets(main: Comparison) -> list[SetResult]:
    return [s for key, s in main.sets.items() if key == "all_folds" or len(s.folds) < len(main.folds)]


def forest(analysis: Analysis) -> Exhibit:
    """Speed-up per task with its interval, and the means over the sets of tasks."""
    main = analysis.main
    chosen = _forest_sets(main)
    rows = forest_rows(main, {"all_folds": "mean of all folds", "not_yet_solved": "mean of not yet solved"})
    tested = [(f.measures.limit, f.p) for f in main.folds] + [(s.limit, s.p) for s in chosen]
    data = pd.DataFrame(
        [
            {
                "row": row.label,
                "suite": row.suite,
                "speed_up": row.ratio.value,
                "low": row.ratio.low,
                "high": row.ratio.high,
                "df": row.ratio.df,
                "limit": limit,
                "no_interval": row.ratio.reason,
                "p_permutation": p,
                "n": "+".join(map(str, row.n)),
                "mark": row.mark,
            }
            for row, (limit, p) in zip(rows, tested, strict=True)
        ]
    )
    return Exhibit(
        "forest",
        "Speed-up per task",
        "Ratio of mean steps to a score, averaged over θ, with 95% t intervals; n is the number of "
        f"independent runs of {main.baseline} + {main.arm}. Hollow: solved at step 0. "
        "≥: limited by the first checkpoint.",
        plots.forest(rows, main.baseline),
        data,
    )
