"""What there is, as Markdown, made from the registry: the table in the README and ``docs/tasks.md``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Sequence

import mtenvs
from harness.reference_scores import load_reference
from mtenvs.spec import Family, Task

PAGE_HEAD = """# Families and tasks

Written by `mtenvs tasks --markdown` from the registry; a test compares. Distances are Euclidean, in
descriptor units: every parameter's declared range is 2 long. A score of 0 is a random policy's return, 1
the reference's, which comes from single-task training (`mtenvs reference FAMILY`).
"""


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
    return _table(("family", "what it is", "what a task sets", "published tasks"), rows)


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
    scores = _scores(family)
    tasks = []
    for task in family.tasks:
        near, distance = nearest(family, task)
        tasks.append(
            (
                str(task.number),
                task.name,
                differences(family, task),
                f"{near.name}, {distance:.2f}",
                *scores.get(task.name, ("", "")),
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
            _table(("parameter", "nominal", "range", "unit", "scale", "why this range"), parameters),
            _table(("", "task", "differs from nominal in", "nearest", "random", "reference"), tasks),
        ]
    )


def _scale(parameter: mtenvs.Parameter) -> str:
    return "log" if parameter.log else "whole numbers" if parameter.integer else "linear"


def _scores(family: Family) -> dict[str, tuple[str, str]]:
    """Mean returns of the random policy and the reference by task, as far as they are known."""
    try:
        scores = load_reference(family.name, family.version)["scores"]
    except FileNotFoundError:
        return {}
    return {name: (f"{s['random']:.1f}", f"{s['reference']:.1f}") for name, s in scores.items()}


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
