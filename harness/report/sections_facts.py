"""What is neither measured nor tested: what was counted and spent, told, checked and filmed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import measures
from harness.joint import SEPARATE
from harness.report import agent, words
from harness.report.analysis import Analysis, LeakCheck, leak_checks
from harness.report.page import (
    MEDIA,
    Cell,
    Section,
    absent,
    bullets,
    code,
    details,
    escape,
    facts,
    film,
    heading,
    paragraph,
    table,
)
from harness.schema import CONTROLS

SEEDS = {
    "joint": "per task of separate networks, and per joint arm",
    "joint_only": "per joint arm",
    "matrix": "per source, and per target from scratch",
}
"""What the plan's number of seeds is per, where it is not fold and arm."""
MEASURED = {
    "speed_up": (
        "ρ̄",
        "mean over runs of the mean over θ of min(arrival, B), baseline divided by arm",
    ),
    "joint_only": (
        "final score",
        "mean of g over the last three checkpoints; 0 for a network that has diverged",
    ),
}
"""What the headline is of: where nothing is compared, the score itself."""
ARRIVAL = "the first checkpoint with score ≥ θ whose mean with the next two is ≥ θ too"
CROSSING = (
    ", dated to where the line from the score at the checkpoint before crosses θ, but not before the first "
    "checkpoint after step 0"
)
"""What is added where arrivals are interpolated."""
REBUILD = "mtenvs report ."
FILM = "mtenvs video {family} --task {task} --policy {policy} --out {out}"
LARGEST_FILMS = 40_000_000
"""Bytes of films that the page takes in, so that it still opens; the others are named."""


# --- 13 fairness -----------------------------------------------------------------------------------


def fairness(analysis: Analysis) -> Section:
    """Section 13: what each arm was given, and what it spent."""
    rows = [
        [
            f"{row.phase} {row.arm}",
            words.count_cell(row.runs),
            *map(words.count_cell, (row.steps, row.updates, row.parameters)),
            words.number_cell(row.wall_seconds / 60, 1),
            words.count_cell(row.tuning_trials),
        ]
        for row in measures.fairness(analysis.runs, analysis.plan).itertuples()
    ]
    return Section(
        "Fairness",
        [
            paragraph(tuning(analysis)),
            heading("Spent per complete run"),
            table(
                ["phase and arm", "complete runs", "steps", "gradient updates", "parameters",
                 "wall-clock, min", "tuning trials"],
                rows,
                "what each arm spent",
            ),
            paragraph(
                "Means over runs. The wall-clock of a run is its share of the batch that it trained in. "
                "Evaluation steps are not counted."
            ),
            *competence(analysis),
            *exclusion(analysis),
            *leaks(analysis),
        ],
        13,
    )  # fmt: skip


def tuning(analysis: Analysis) -> str:
    """How the hyperparameters were found, as a sentence."""
    given = analysis.plan.get("tuning")
    worlds = f"All arms have {analysis.plan['worlds_per_run']:,} worlds per run."
    if given is None:
        return f"{worlds} The plan does not say how the hyperparameters were found."
    same = "All arms share one configuration" if given["shared"] else "Each arm has its own configuration"
    if not given["trials"]:
        changed = ", ".join(analysis.plan["learner"].get("changed") or ())
        asked = f", but for what was asked for otherwise ({changed})" if changed else ""
        return (
            f"{worlds} {same}, the agent's hyperparameters as they come{asked}: no tuning trial was made."
        )
    return (
        f"{worlds} {same}, tuned in {given['trials']:,} trials of up to {given['steps']:,} steps per arm "
        "on sampled tasks, none of them published."
    )


def competence(analysis: Analysis) -> list[str]:
    """Competence at hand-over, by fold and arm."""
    found = [heading("Competence at hand-over")]
    if analysis.competence.empty:
        planned = (analysis.runs["phase"] == "pretrain").any()
        why = "No pretraining is complete." if planned else "Nothing is pretrained in this plan."
        return [*found, absent(why)]
    rows = []
    sources = {run["id"]: run["tasks"] for run in analysis.plan["runs"]}
    trained = [p.arm for p in analysis.competence.itertuples() if p.fold in sources[p.run]]
    for (fold, arm), of_fold in analysis.competence.groupby(["fold", "arm"], sort=False):
        score = of_fold["score"].mean()
        rows.append(
            [
                analysis.name(fold) if fold >= 0 else "–",
                arm,
                str(len(of_fold)),
                words.number_cell(score),
                words.number_cell(of_fold["score"].min()),
                words.number_cell(of_fold["held_out"].mean()),
                "" if score >= measures.COMPETENT else f"below {measures.COMPETENT}",
            ]
        )
    return [
        *found,
        table(
            [
                "held-out task",
                "arm",
                "pretrainings",
                "mean g on sources",
                "lowest",
                "g on held out",
                "mark",
            ],
            rows,
            "competence at hand-over",
        ),
        paragraph(
            "Mean score on the source tasks when pretraining ends"
            + _on_held_out(analysis.competence["held_out"].notna().any(), list(dict.fromkeys(trained)))
        ),
    ]


def _on_held_out(any_score: bool, trained: Sequence[str]) -> str:
    """The end of a sentence on the scores at hand-over: what they say of the task that is held out."""
    if not any_score:
        return "."
    but = f", but for {', '.join(trained)}, whose networks have" if trained else ""
    return f", and on the task that is held out, which the network has not trained on{but}."


def exclusion(analysis: Analysis) -> list[str]:
    """The rules of exclusion that the plan froze."""
    rules = analysis.plan.get("exclusion")
    if not rules:
        return []
    return [
        heading("Rules of exclusion, frozen in the plan"),
        facts([(str(k).replace("_", " "), str(v)) for k, v in rules.items()], "rules of exclusion"),
    ]


def leaks(analysis: Analysis) -> list[str]:
    """The proof that no held-out task was trained on."""
    found = [heading("No leaks")]
    plan = analysis.plan
    if "leaks" not in plan:
        return [
            *found,
            '<p class="absent">The plan holds no hashes of models and goals to prove it by.</p>',
        ]
    given = plan["leaks"]["seeds"]
    seeds = (
        f"The {given['runs']:,} runs have streams of their own. Worlds of training are seeded below "
        f"{given['training_below']:,}, the {given['evaluation']:,} start states of evaluation from "
        f"{given['evaluation_from']:,} on."
    )
    checks = leak_checks(plan)
    checked = (
        "Checked again for this page: hashes (SHA-256) of compiled models and of goals, and distances of "
        "standardised descriptors, of every task that is learned against the tasks that its pretrainings "
        "are planned on."
    )
    if "ceiling" in analysis.arms:
        checked += " The arm ceiling is trained on all tasks on purpose."
    return [
        *found,
        paragraph(seeds),
        *([leak_table(checks), paragraph(checked)] if checks else []),
        *([] if checks else [absent("Nothing is pretrained in this plan, so no task is held out.")]),
        details(
            "Hashes",
            table(
                ["task", "model", "goal"],
                [
                    [name, value, plan["leaks"]["goals"].get(name, "–")]
                    for name, value in plan["leaks"]["models"].items()
                ],
                "hashes of models and goals",
            ),
        ),
    ]


def leak_table(checks: Sequence[LeakCheck]) -> str:
    """A row per held-out task."""
    return table(
        ["held-out task", "source tasks", "of them the same", "nearest source", "its distance",
         "least allowed",
         "verdict"],
        [
            [
                c.task,
                words.count_cell(c.sources),
                ", ".join(c.same) or "none",
                c.nearest,
                words.number_cell(c.distance, 3),
                words.number_cell(c.minimum, 3),
                "no leak" if c.holds else "LEAK",
            ]
            for c in checks
        ],
        "no held-out task was trained on",
    )  # fmt: skip


# --- 16 videos -------------------------------------------------------------------------------------


def videos(analysis: Analysis, directory: Path) -> Section:
    """Section 16: films of before and after, where the store holds any."""
    folder = directory / "videos"
    found = folder.iterdir() if folder.is_dir() else []
    # a link of a stranger's would have the page show a file of the user's
    mine = (p for p in found if p.suffix.lower() in MEDIA and p.is_file() and not p.is_symlink())
    films = sorted(mine, key=_film_order)
    shown, left, size = [], [], 0
    for path in films:
        own = path.stat().st_size
        if size + own > LARGEST_FILMS:
            left.append(path.name)
        else:
            size += own
            shown.append(film(path.name, path.read_bytes()))
    parts = shown
    if left:
        parts.append(paragraph(f"Too large for this page, in videos/: {', '.join(left)}."))
    if not films:
        learned = next(run for run in analysis.plan["runs"] if run["phase"] == "learn")
        task = analysis.plan["folds"][0] if analysis.plan["folds"] else learned["tasks"][0]
        # what is not pretrained knows nothing before
        phases = [("before", "pretrain"), ("after", "learn")]
        there = [(name, phase) for name, phase in phases if (analysis.runs["phase"] == phase).any()]
        lines = [
            FILM.format(
                family=analysis.plan["family"],
                task=task,
                policy=f"checkpoints/{_film_run(analysis, phase)}",
                out=f"videos/{task}-{name}.mp4",
            )
            for name, phase in there
        ]  # fmt: skip
        of = f"of {analysis.name(task)} {' and '.join(name for name, _ in there)} learning it"
        parts = [
            '<p class="absent">No film lies in <code>videos/</code>. Where checkpoints were kept, '
            f"{'films' if len(there) > 1 else 'a film'} {escape(of)} "
            f"{'are' if len(there) > 1 else 'is'} made by</p>",
            code("\n".join(lines)),
            paragraph("and shown here when the report is written again."),
        ]
    return Section("Videos before and after", parts, 16)


def _film_order(path: Path) -> tuple[float, str, bool, str]:
    """By the number that a name begins with, then before it was learned before after."""
    number, what = re.fullmatch(r"(\d*)(.*)", path.stem, re.DOTALL).groups()  # type: ignore[union-attr]
    stem = re.sub("before|after", "", what)
    return float(number) if number else math.inf, stem, "after" in what, path.name


def _film_run(analysis: Analysis, phase: str) -> str:
    """The first run of a phase, of the arm that the headline is of where there is one."""
    chosen = analysis.runs[analysis.runs["phase"] == phase]
    if analysis.comparisons and (chosen["arm"] == analysis.main.arm).any():
        chosen = chosen[chosen["arm"] == analysis.main.arm]
    return str(chosen["run"].iloc[0])


# --- what stands behind the sections ---------------------------------------------------------------


def _of_controls(plan: Mapping[str, Any]) -> str:
    """Where controls have fewer seeds than the other arms."""
    controls, seeds = [arm for arm in plan["arms"] if arm in CONTROLS], plan.get("control_seeds")
    return f", {seeds} of {', '.join(controls)}" if controls and seeds not in (None, plan["seeds"]) else ""


def counted(analysis: Analysis) -> Section:
    """Definitions, in the plan's numbers."""
    plan = analysis.plan
    is_joint = analysis.kind == "joint"
    kind = "joint_only" if is_joint and SEPARATE not in analysis.arms else analysis.kind
    together = ", K·B in all on K tasks" if is_joint else ""
    own = agent.own_hyperparameters(plan)
    rows = [
        (
            "step",
            "one control step of one world, summed over all worlds of a run; evaluation is not counted",
        ),
        ("worlds per run", f"{plan['worlds_per_run']:,}, in every arm"),
        ("budget B", f"{plan['budget']:,} steps on a task that is learned{together}"),
        *_pretraining(plan),
        ("seeds", f"{plan['seeds']} {SEEDS.get(kind, 'per fold and arm')}{_of_controls(plan)}"),
        *_checkpoints(analysis),
        ("evaluation", f"{plan['episodes']} episodes per checkpoint, {plan['first_episodes']} at step 0"),
        ("thresholds θ", ", ".join(f"{t:.2f}" for t in plan["thresholds"])),
        ("arrival at θ", ARRIVAL + (CROSSING if analysis.interpolated else "")),
        MEASURED.get(kind, MEASURED["speed_up"]),
        *agent.described(plan),
    ]
    config = [
        [key, json.dumps(value)]
        for key, value in sorted(plan["learner"]["config"].items())
        if key != "architecture"
    ]
    return Section(
        "What is counted",
        [
            facts(rows, "what is counted"),
            details(
                "Hyperparameters" if own else "Hyperparameters, the same in all arms",
                table(["name", "value"], config, "hyperparameters")
                + "".join(
                    paragraph(f"{arm} has instead: {json.dumps(changed, sort_keys=True)[1:-1]}.")
                    for arm, changed in own.items()
                ),
            ),
        ],
    )


def _pretraining(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How long pretrainings are and what they are on, as the plan's runs have it; nothing where none is."""
    planned = [run for run in plan["runs"] if run["phase"] == "pretrain"]
    if not planned:
        return []
    steps, tasks = (
        sorted(set(found)) for found in zip(*((r["steps"], len(r["tasks"])) for r in planned), strict=True)
    )
    what = "source task" if tasks == [1] else "source tasks"
    text = f"{_several(steps)} steps over {_several(tasks)} {what}, not part of the speed-up"
    return [("pretraining", text)]


def _checkpoints(analysis: Analysis) -> list[tuple[str, str]]:
    """When networks are evaluated; joint ones at times of their own."""
    given = {"checkpoints": "checkpoints", "joint_checkpoints": "checkpoints of joint networks"}
    if analysis.kind == "joint" and SEPARATE not in analysis.arms:
        del given["checkpoints"]
    elif analysis.kind != "joint":
        del given["joint_checkpoints"]
    return [
        (name, f"{len(steps)}, at {', '.join(f'{s:,}' for s in steps)} steps")
        for key, name in given.items()
        for steps in [analysis.plan[key]]
    ]


def _several(numbers: Sequence[int]) -> str:
    return " or ".join(f"{number:,}" for number in numbers)


def reference(analysis: Analysis) -> Section:
    """The constants of the score."""
    given = analysis.plan["reference"]
    rows = [
        [
            name,
            *(
                words.number_cell(float(scores.get(key, math.nan)), 1)
                for key in ("random", "zero", "reference")
            ),
        ]
        for name, scores in given["scores"].items()
    ]
    return Section(
        "Reference scores",
        [
            f"<p>Version {escape(given.get('version', '–'))}. "
            "g = (J − R<sub>random</sub>)/(R<sub>reference</sub> − R<sub>random</sub>), J the mean "
            "undiscounted return of an episode.</p>",
            table(["task", "random actions", "zero actions", "reference"], rows, "reference scores"),
        ],
    )


def tasks(analysis: Analysis) -> Section:
    """The published tasks."""
    given = analysis.plan["tasks"]
    names = list(dict.fromkeys(name for task in given for name in task["parameters"]))
    # a matrix trains on its targets too, though never on the one that is learned
    role = {"matrix": "target", "joint": "learned"}.get(analysis.kind, "held out")
    rows = [
        [
            Cell(str(t["number"]), t["number"]),
            t["name"],
            role if t["number"] in analysis.plan["folds"] else "",
        ]
        + [_parameter(t["parameters"].get(n)) for n in names]
        for t in given
    ]
    return Section(
        "Tasks",
        [
            details(
                f"{len(given)} published tasks of {analysis.plan['family']}",
                table(["number", "name", "fold", *names], rows, "published tasks"),
            )
        ],
    )  # fmt: skip


def _parameter(value: float | None) -> Cell:
    return Cell("–" if value is None else f"{value:.4g}", value)


def rebuild(analysis: Analysis) -> Section:
    """How to get this page again."""
    versions = {name: analysis.plan.get(name) for name in ("mtenvs", "version", "rewards", "format")}
    known = [f"{name} {value}" for name, value in versions.items() if value is not None]
    return Section(
        "Rebuild this page",
        [
            "<p>In the directory that holds <code>plan.json</code>:</p>",
            code(REBUILD),
            "<p>It reads the plan and the rows and gives this page again, byte for byte. Each figure is in "
            "<code>report/figures/</code> as SVG with its data as CSV.</p>",
            bullets([f"Plan SHA-256: {analysis.plan.get('sha256', '–')}", *known]),
        ],
    )
