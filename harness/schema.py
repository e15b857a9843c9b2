"""What the files of an experiment may hold, checked once where they are read: they may be a stranger's.

A check is a function of a value that returns what is wrong with it, in words that begin with where, or
nothing. What a plan must hold depends on what is done with it, and is said by whoever reads it; what it
does hold has to be of the kinds that are listed here.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Check = Callable[[Any], str]

LONGEST = 1000
"""Characters of a name or a title at most."""
FORMULA = "=+-@"
"""What a cell begins with that spreadsheets take for a formula: tables are exported for them too."""
LONGEST_NAME = 200
"""Of a run, which is that of its directory."""
CONTROLS = ("normalizer", "shuffled", "ceiling")
"""Arms that may be planned on some folds only, and with fewer seeds."""
LARGEST = 2**53
"""Up to which whole numbers are exact as floats too."""
SHOWN = 60
"""Characters of a wrong value that a message shows."""
KINDS = ("leave_one_out", "dose", "matrix", "joint")
"""Kinds of plans."""
PHASES = ("pretrain", "learn")
"""Phases of runs."""
INTERPOLATED, AT_CHECKPOINT = "interpolated", "checkpoint"
"""How a plan dates arrivals: to where scores, joined by lines, cross θ; or to the checkpoint that shows
them, as plans do that do not say, for they are of before there was a choice."""

REPORTED = (
    *("title", "family", "exploratory", "tasks", "folds", "arms", "seeds", "budget", "worlds_per_run"),
    *("checkpoints", "episodes", "first_episodes", "thresholds", "primary", "headline", "learner"),
    *("break_even_threshold", "reference"),
)
"""What a plan must have to be reported."""
TRAINED = (
    *("cohorts", "conditioning", "cohort_runs", "family_code", "leaks", "mtenvs", "root_seed", "sha256"),
    "version",
)
"""What it must have besides to be trained."""
OF_RUN = ("id", "phase", "fold", "arm", "seed", "tasks", "steps", "start")
"""What every run of a plan that is reported must have."""
OF_TRAINED_RUN = ("finetune", "init", "switches", "told", "conditioning", "entropy")
"""What it must have besides to be trained."""
OF_TRAINED_LEARNER = ("version", "rollout", "many_runs", "parameters")
"""What its learner must have for that, besides name and hyperparameters."""
MOST_WORLDS = 1_000_000
"""Of a run, and episodes of an evaluation, that are tried."""


def parsed(text: str | bytes) -> Any:
    """What a text in JSON says, without the numbers that JSON does not have.

    Raises:
        ValueError: if it is none, or too deep or too long to be read.
    """
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


# --- checks ----------------------------------------------------------------------------------------


def text(value: Any) -> str:
    """One line of printable characters, as names and titles are; none that a spreadsheet would compute."""
    if isinstance(value, str) and value.isprintable() and len(value) <= LONGEST:
        if value[:1] in ("", *FORMULA):
            return f" is {_shown(value)}, which begins like a formula" if value else ""
        return ""
    return f" is {_shown(value)}, no line of at most {LONGEST} printable characters"


def directory_name(value: Any) -> str:
    """A name that a directory can have, and that leads nowhere else."""
    if isinstance(value, str) and len(value) <= LONGEST_NAME and re.fullmatch(r"[\w=-][\w=.-]*", value):
        return ""
    return f" is {_shown(value)}; names have at most {LONGEST_NAME} letters, digits and any of _ = . -"


def whole(least: int = -LARGEST, most: int = LARGEST) -> Check:
    """A whole number in a range."""

    def check(value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return ""
        return f" is {_shown(value)}, no whole number in [{least}, {most}]"

    return check


def number(least: float = -math.inf) -> Check:
    """A finite number, of float's range, that is not less than ``least``."""

    def check(value: Any) -> str:
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        if good and abs(value) < 1e300 and value >= least:
            return ""
        of = "" if least == -math.inf else f", at least {least:g}"
        return f" is {_shown(value)}, no finite number{of}"

    return check


def flag(value: Any) -> str:
    """True or false."""
    return "" if isinstance(value, bool) else f" is {_shown(value)}, neither true nor false"


def one_of(*valid: str) -> Check:
    """One of some words."""
    return lambda value: "" if value in valid else f" is {_shown(value)}; valid: {', '.join(valid)}"


def maybe(check: Check) -> Check:
    """Null, or what ``check`` asks for."""
    return lambda value: "" if value is None else check(value)


def each(check: Check, least: int = 0, increasing: bool = False, once: bool = False) -> Check:
    """A list of at least so many entries, all of which are right."""

    def check_list(value: Any) -> str:
        if not isinstance(value, list) or len(value) < least:
            return f" is {_shown(value)}, no list of {least} or more"
        for i, entry in enumerate(value):
            if wrong := check(entry):
                return f"[{i}]{wrong}"
        if increasing and any(b <= a for a, b in itertools.pairwise(value)):
            return f" is {_shown(value)}, which does not increase"
        if once and len(set(value)) != len(value):
            return f" is {_shown(value)}, which has an entry twice"
        return ""

    return check_list


def of_names(check: Check) -> Check:
    """An object whose names are lines of text and whose values are right."""

    def check_object(value: Any) -> str:
        if not isinstance(value, dict):
            return f" is {_shown(value)}, no object"
        for name, entry in value.items():
            if wrong := text(name):
                return f": a name{wrong}"
            if wrong := check(entry):
                return f".{name}{wrong}"
        return ""

    return check_object


def entries(checks: Mapping[str, Check], needed: Iterable[str] = ()) -> Check:
    """An object whose entries of these names are right; those that are ``needed`` are there."""

    def check_object(value: Any) -> str:
        if not isinstance(value, dict):
            return f" is {_shown(value)}, no object"
        if missing := [name for name in needed if name not in value]:
            return f" lacks {', '.join(missing)}"
        for name, check in checks.items():
            if name in value and (wrong := check(value[name])):
                return f".{name}{wrong}"
        return ""

    return check_object


def only(checks: Mapping[str, Check]) -> Check:
    """An object of exactly these entries, all of them right."""

    def check_object(value: Any) -> str:
        if isinstance(value, dict) and (unknown := [name for name in value if name not in checks]):
            return f" has {_shown(unknown[0])}, which is not known"
        return entries(checks, checks)(value)

    return check_object


def anything(value: Any) -> str:
    """Numbers that floats hold, and text that can be written; however they are nested."""
    if isinstance(value, dict):
        return of_names(anything)(value)
    if isinstance(value, list):
        return each(anything)(value)
    if isinstance(value, str):
        return text(value)
    return "" if value is None or isinstance(value, bool) else number()(value)


def _shown(value: Any) -> str:
    try:
        shown = repr(value)
    except (RecursionError, ValueError):  # too deep, or a number of too many digits
        return f"a {type(value).__name__}"
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]} ..."


# --- a plan ----------------------------------------------------------------------------------------

_COUNT, _SIZE = whole(0), whole(1, MOST_WORLDS)
_CHECKPOINTS = each(_COUNT, 2, increasing=True)
_LEARNER: dict[str, Check] = {
    "name": text,
    "version": maybe(text),
    "rollout": _SIZE,
    "config": of_names(anything),
    "changed": of_names(anything),
    "many_runs": flag,
    "starts": each(text),
    "source": text,
    "parameters": _COUNT,
    "tuning": of_names(_COUNT),
}
_SCORES = entries({name: number() for name in ("random", "zero", "reference")}, ("random", "reference"))
_TASK = entries(
    {"family": text, "name": text, "parameters": of_names(number()), "number": whole(0)},
    ("family", "name", "parameters", "number"),
)
_RUN: dict[str, Check] = {
    "id": directory_name,
    "phase": one_of(*PHASES),
    "fold": whole(-1),
    "arm": text,
    "seed": _COUNT,
    "finetune": _COUNT,
    "tasks": each(_COUNT, 1, once=True),
    "steps": _COUNT,
    "start": maybe(text),
    "init": maybe(text),
    "switches": each(text),
    "told": one_of("own", "mean"),
    "conditioning": text,
    "entropy": whole(0, 2**64),
    "config": maybe(of_names(anything)),
}
_STREAMS = dict.fromkeys(("runs", "evaluation", "training_below", "evaluation_from"), whole(0, 2**64))
_LEAKS: dict[str, Check] = {
    "models": of_names(text),
    "goals": of_names(text),
    "min_distance": number(0.0),
    "distances": of_names(of_names(number(0.0))),
    "seeds": entries(_STREAMS, _STREAMS),
}
_PLAN: dict[str, Check] = {
    "kind": one_of(*KINDS),
    "title": text,
    "preset": text,
    "exploratory": flag,
    "family": text,
    "version": _COUNT,
    "family_code": text,
    "mtenvs": text,
    "tasks": each(_TASK, 1),
    "descriptors": of_names(each(number())),
    "seeds": whole(1),
    "budget": whole(1),
    "pretrain_budget": whole(1),
    "worlds_per_run": _SIZE,
    "checkpoints": _CHECKPOINTS,
    "joint_checkpoints": _CHECKPOINTS,
    "episodes": _SIZE,
    "first_episodes": _SIZE,
    "thresholds": each(number(), 1, increasing=True),
    "primary": text,
    "break_even_threshold": number(),
    "equivalence": number(1.0),
    "exclusion": of_names(text),
    "tuning": entries({"trials": _COUNT, "steps": _COUNT, "shared": flag}, ("trials", "steps")),
    "conditioning": text,
    "new_code": text,
    "switches": each(text, once=True),
    "layout": maybe(text),
    "learner": entries(_LEARNER, ("name", "config")),
    "reference": entries({"version": anything, "scores": of_names(_SCORES)}, ("scores",)),
    "min_distance": number(0.0),
    "cohort_runs": whole(1),
    "root_seed": whole(0, 2**64),
    "folds": each(_COUNT, once=True),
    "arms": each(text, 1, once=True),
    "control_folds": each(_COUNT),
    "control_seeds": whole(1),
    "finetunes": whole(1),
    "finetune_folds": each(_COUNT),
    "headline": text,
    "arrivals": one_of(INTERPOLATED, AT_CHECKPOINT),
    "cohorts": each(each(text, 1)),
    "sha256": text,
    "leaks": entries(_LEAKS, _LEAKS),
}


def check_plan(plan: Any, needed: Sequence[str] = (), of_run: Sequence[str] = ("id",)) -> str:
    """What is wrong with a plan, in words; empty if nothing is.

    Args:
        plan: as it was read.
        needed: entries that it must have, besides ``runs``.
        of_run: entries that every run must have.
    """
    runs = each(entries(_RUN, of_run))
    if wrong := entries({**_PLAN, "runs": runs}, ("runs", *needed))(plan):
        return f"its plan{wrong}"
    by_id = {run["id"]: run for run in plan["runs"]}
    if len(by_id) != len(plan["runs"]):
        return ""  # the store says which
    return _check_starts(by_id) or _check_tasks(plan) or _check_cohorts(plan, by_id)


def _check_starts(by_id: Mapping[str, Mapping[str, Any]]) -> str:
    """Every run starts from nothing in the end."""
    sound: set[str] = set()
    for run_id in by_id:
        chain: list[str] = []
        start: Any = run_id
        while start is not None and start not in sound:
            if start not in by_id:
                return f"run {chain[-1]!r} starts from {start!r}, which is no run of the plan"
            if start in chain:
                return f"run {start!r} starts from itself"
            chain.append(start)
            start = by_id[start].get("start")
        sound.update(chain)
    return ""


def _check_tasks(plan: Mapping[str, Any]) -> str:
    """Whatever speaks of a task speaks of one that is there, by number or by name."""
    if "tasks" not in plan:
        return ""
    numbers = [task["number"] for task in plan["tasks"]]
    names = [task["name"] for task in plan["tasks"]]
    if numbers != list(range(len(names))) or len(set(names)) != len(names):
        return f"its tasks are numbered {_shown(numbers)}, not 0, 1, ..., or two have one name"
    told = [("folds", set(plan.get("folds", ())))]
    told += [(f"run {run['id']}", {*run.get("tasks", ()), run.get("fold", -1)}) for run in plan["runs"]]
    for where, those in told:
        if unknown := sorted(those - {*numbers} - ({-1} if where != "folds" else set())):
            return f"{where} has task {unknown[0]}; there are 0 to {len(numbers) - 1}"
    shown = plan.get("descriptors", {})
    if len({len(shown[name]) for name in names if name in shown}) > 1:
        return "its descriptors are of unequal length"
    for name in ("descriptors", "leaks", "reference"):
        spoken = plan.get(name) or {}
        inner = {"reference": ("scores",), "leaks": ("models", "goals")}.get(name)
        for place in [spoken] if inner is None else [spoken[key] for key in inner if key in spoken]:
            if place and (missing := [task for task in names if task not in place]):
                return f"its {name} know nothing of task {missing[0]!r}"
    return ""


def _check_cohorts(plan: Mapping[str, Any], by_id: Mapping[str, Any]) -> str:
    """Every run is in one cohort."""
    if "cohorts" not in plan:
        return ""
    dealt = [run_id for cohort in plan["cohorts"] for run_id in cohort]
    if sorted(dealt) != sorted(by_id):
        return "its cohorts do not have every run once"
    return ""


def check_trained(plan: Mapping[str, Any]) -> str:
    """What speaks against training a plan, in words; empty if nothing does.

    Args:
        plan: that :func:`check_plan` has found right.
    """
    if wrong := check_plan(plan, (*REPORTED, *TRAINED), (*OF_RUN, *OF_TRAINED_RUN)):
        return wrong
    if missing := [name for name in OF_TRAINED_LEARNER if name not in plan["learner"]]:
        return f"its learner lacks {', '.join(missing)}"
    if plan.get("kind") == "joint" and "joint_checkpoints" not in plan:
        return "its plan lacks joint_checkpoints"
    by_id = {run["id"]: run for run in plan["runs"]}
    done: set[str] = set()
    for cohort in plan["cohorts"]:
        runs = [by_id[run_id] for run_id in cohort]
        shapes = [
            (r["phase"], len(r["tasks"]), r["steps"], r["conditioning"], r.get("config")) for r in runs
        ]
        if any(shape != shapes[0] for shape in shapes):
            return f"the runs of the cohort of {cohort[0]} are not alike"
        if late := [r["id"] for r in runs if r["start"] is not None and r["start"] not in done]:
            return f"run {late[0]} comes before the one that it starts from"
        if plan["worlds_per_run"] % len(runs[0]["tasks"]):
            return f"{plan['worlds_per_run']} worlds cannot be dealt to the tasks of run {cohort[0]}"
        done |= {*cohort}
    return ""
