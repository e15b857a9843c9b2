"""What there is, as Markdown, made from the registry: the table in the README and ``docs/tasks.md``."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import numpy as np

import mtenvs
from harness import markdown, measures
from harness.reference_scores import load_record
from mtenvs.spec import Family, Task

PAGE_HEAD = """# Families and tasks

Written by `mtenvs tasks --markdown` from the registry; a test compares. Distances are Euclidean, in
descriptor units: every parameter's declared range is 2 long. A score of 0 is a random policy's return, 1
the reference's, which comes from single-task training (`mtenvs reference FAMILY`).

## How the tasks were decided

Lists of tasks, ranges of parameters, rewards, ends of episodes and reference scores follow from the tasks'
descriptors and from how single networks learn them from scratch. How well a network carries over from one
published task to another was no criterion: a list chosen by that would put the answer into the question. A
published list, a reward or a reference score never changes under the same version.

- **Distances.** Every list has tasks that are near another and tasks that are far from all, as the column
  *nearest* shows, and values towards both ends of most parameters' ranges (a high or low end, below, is the
  list's); every parameter is other than nominal in at least three tasks (exceptions are named), so that
  leaving one out leaves no column of the code untrained.
- **Learnable.** A task is published if the worst of its reference trainings, all from scratch, ends more
  than three standard deviations of a random policy's episodes above that policy, and if doing nothing
  scores under 0.1 (`mtenvs reference` says which does not).
- **Budgets** belong to a plan, not to a task, and are frozen in it before anything is trained
  ([protocol](protocol.md#the-plan-comes-first)). They are meant to be such that training from scratch
  reaches 0.8 on most tasks of a family within the budget.
- **Looks at transfer.** While these lists were drafts, small leave-one-outs of two tasks of each family
  were run to try the machinery, and their reports were committed (`results/quick*`, now partly in the
  history only). No list, range or reward of a family has changed since its first such report was
  committed, as the history shows. The reference scores of Biped, Octopus and BipedSkills were measured
  anew after that, with learning curves, just before they were frozen, those of Octopus and BipedSkills
  after their tuning too; those reports and `results/baselines` keep the earlier ones. What else was seen of
  transfer, on tasks that are not published, is said of each family below.
"""

TABLE_MARKS = ("<!-- families -->\n", "<!-- /families -->")
"""What stands before and after the table of families in the README."""
GOOD = 0.8
"""Score that budgets are chosen by: most tasks are to be learned so well from nothing within the budget."""
PARAMETER_COLUMNS = ("parameter", "nominal", "range", "unit", "scale", "why this range")
TASK_COLUMNS = ("", "task", "differs from nominal in", "nearest", "random", "reference", "its success",
                f"steps to {GOOD:g} from nothing")  # fmt: skip


def differences(family: Family, task: Task) -> str:
    """``'links 2, taper 0.8'``: in what a task differs from nominal."""
    values = [(p, task.parameters[p.name]) for p in family.parameters]
    return ", ".join(f"{p.name} {v:g}" for p, v in values if v != p.nominal) or "nothing"


def nearest(family: Family, task: Task) -> tuple[Task, float]:
    """The nearest other published task and its distance in descriptor units."""
    other = min((t for t in family.tasks if t != task), key=lambda t: family.distance(task, t))
    return other, family.distance(task, other)


def families_table() -> str:
    """A line for every family."""
    rows = []
    for name in mtenvs.families():
        family = mtenvs.get_family(name)
        parameters = ", ".join(p.name.replace("_", " ") for p in family.parameters)
        tasks = ", ".join(task.name for task in family.tasks)
        rows.append((f"`{family.id}`", family.summary, parameters, tasks))
    return markdown.table(("family", "what it is", "what a task sets", "published tasks"), rows) + "\n"


def with_families_table(text: str) -> str:
    """The text of the README with the present table of families between its marks.

    Raises:
        ValueError: if the marks are not there, once each and in order.
    """
    return markdown.between(text, *TABLE_MARKS, families_table(), "the table of families")


def page() -> str:
    """Every family with its own words, parameters and tasks."""
    sections = [_section(mtenvs.get_family(name)) for name in mtenvs.families()]
    return "\n".join([PAGE_HEAD, *sections])


def _section(family: Family) -> str:
    text = inspect.cleandoc(sys.modules[family.build.__module__].__doc__ or family.summary)
    parameters = [
        (p.name, f"{p.nominal:g}", f"{p.low:g} to {p.high:g}", p.unit, _scale(p), p.reason)
        for p in family.parameters
    ]
    record = _record(family)
    curves = _has_curves(record)
    tasks = []
    for task in family.tasks:
        near, distance = nearest(family, task)
        tasks.append(
            (
                str(task.number),
                task.name,
                differences(family, task),
                f"{near.name}, {distance:.2f}",
                *_scores(record, task),
                *([learned(record, task)] if curves else []),
            )
        )
    facts = (
        f"Control at {1 / (family.frame_skip * mtenvs.model(family, 0).opt.timestep):g} Hz, "
        f"{family.frame_skip} physics steps each; episodes of {family.episode_steps} control steps; "
        f"{len(family.observation_names)} observed entries, {len(family.action_names)} actions"
        + (f"; layouts: {', '.join(family.layouts)} (the first is the default)" if family.layouts else "")
        + "."
    )
    return "\n".join(
        [
            f"## {family.id}\n",
            f"```text\n{text}\n```\n",
            facts + "\n",
            markdown.table(PARAMETER_COLUMNS, parameters) + "\n",
            markdown.table(TASK_COLUMNS if curves else TASK_COLUMNS[:-1], tasks) + "\n",
            *([_settings(record)] if record else []),
            *([_reasons(family)] if family.why else []),
            *([f"### How {family.name} was decided\n\n{family.decided}"] if family.decided else []),
        ]
    )


def _reasons(family: Family) -> str:
    """Why each task is there, a line for every task that says so."""
    lines = [f"- **{task.name}**: {task.why}\n" for task in family.tasks if task.why]
    return f"### Why each task of {family.name} is there\n\n{''.join(lines)}"


def _scale(parameter: mtenvs.Parameter) -> str:
    return "log" if parameter.log else "whole numbers" if parameter.integer else "linear"


def _record(family: Family) -> dict[str, Any]:
    """The family's reference scores and how they were made; empty if it has none."""
    try:
        return load_record(family.name, family.version)
    except FileNotFoundError:
        return {}


def _scores(record: dict[str, Any], task: Task) -> tuple[str, str, str]:
    """Mean returns of the random policy and the reference, and the latter's success; empty if not known."""
    scores = record.get("tasks", {}).get(task.name)
    if not scores:
        return "", "", ""
    reference = scores["reference"]
    return (
        f"{scores['random']['mean']:.1f}",
        f"{reference['mean']:.1f} ± {reference['std']:.1f}",
        f"{reference['success']:.0%}",
    )


def learned(record: dict[str, Any], task: Task) -> str:
    """After how many steps the trainings behind a reference score held :data:`GOOD`: median and range.

    Args:
        record: of the family's reference scores.
        task: one of its tasks.

    Returns:
        Thousands of control steps, ``later`` for a training that never held it; empty where no curve is
        on record.
    """
    scores = record.get("tasks", {}).get(task.name, {})
    if not scores.get("curve", {}).get("steps"):
        return ""
    low, high = scores["random"]["mean"], scores["reference"]["mean"]
    steps = np.array([*scores["curve"]["steps"], record["config"]["steps"]], float)
    returns = np.column_stack([scores["curve"]["returns"], scores["reference"]["seeds"]])
    times = measures.arrivals(
        steps, (returns - low) / (high - low), np.array([GOOD]), float(steps[-1]), interpolate=True
    )
    first, middle, last = (
        "later" if np.isinf(t) else f"{t / 1000:.0f}k"
        for t in np.quantile(times, [0.0, 0.5, 1.0], method="higher")
    )
    return f"{middle} ({first} to {last})"


def _settings(record: dict[str, Any]) -> str:
    """How a family's reference scores were measured."""
    c = record["config"]
    return (
        f"Reference: {c['learner']}, {c['seeds']} trainings of {c['steps']:,} control steps for each task, "
        f"{c['episodes']} episodes of each: mean ± standard deviation of the trainings, share of successes"
        + f"; the last column is when these held {GOOD:g} of it, median and range" * _has_curves(record)
        + ".\n"
    )


def _has_curves(record: dict[str, Any]) -> bool:
    """Whether the reference trainings' learning was recorded, for any task."""
    return any(scores.get("curve", {}).get("steps") for scores in record.get("tasks", {}).values())
