"""Who learned, and from what: the agent as the plan has frozen it, and what is not as usual.

Plans of before agents were described lack some of these entries. What they lack is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

USUAL_CONDITIONING = "descriptor"
NEW_CODE = {
    "true": "its own descriptor",
    "unused": "its own slot of the code, which no pretraining has used",
    "mean": "the mean of its sources' codes, in arms that start from a network that was told of these; "
    "else its own code",
    "nothing": "nothing",
}
"""What a network is told of a task that is new to it, by the plan's ``new_code``."""
DEPARTURES = {
    "freeze_trunk": "of a network that is handed on only the last layers learn, the log standard deviation "
    "of actions, and what tells the network of its task (FiLM's generators, a task's own first layer)",
    "fresh_heads": "the last layers of a network that is handed on start afresh",
    "fresh_critic": "the critic of a network that is handed on starts afresh",
    "keep_optimizer": "the optimiser's state is handed on with the network",
    "reset_log_std": "the log standard deviation of actions starts afresh, whatever is handed on",
    "new_code=mean": "a network that is handed on is told the mean of its sources' codes, not the code of "
    "the task that it learns",
}
"""What is not as in the usual experiment, in words, by :func:`departures`."""


def architecture(plan: Mapping[str, Any]) -> str:
    """How the networks use what they are told; empty for an agent that has no choice."""
    return str(plan["learner"]["config"].get("architecture") or "")


def departures(plan: Mapping[str, Any]) -> list[str]:
    """What of the learners that start from another network is not as usual: switches, and ``new_code``."""
    return [*plan.get("switches", ()), *["new_code=mean"] * (plan.get("new_code") == "mean")]


def variant(plan: Mapping[str, Any]) -> str:
    """What sets the plan apart from the usual one of its agent, in a few words; empty for the usual one."""
    told = plan.get("conditioning", USUAL_CONDITIONING)
    unusual = [f"conditioning={told}"] * (told != USUAL_CONDITIONING)
    changed = plan["learner"].get("changed", {})  # the architecture has a place of its own
    unusual += [f"{key}={value}" for key, value in changed.items() if key != "architecture"]
    return ", ".join([*unusual, *departures(plan)])


def standing(plan: Mapping[str, Any], physics: str = "") -> list[str]:
    """What stands under the title: who learned, in what, and, if so, that this is not the usual experiment.

    Args:
        plan: the plan.
        physics: what stepped the worlds, as a sentence, where it is not as usual.
    """
    built = f", architecture {found}" if (found := architecture(plan)) else ""
    who = f"Agent {plan['learner']['name']}{built}." + (f" {physics}" if physics else "")
    clauses = unusual(plan)
    return [who, f"Not the usual experiment: {clauses}."] if clauses else [who]


def unusual(plan: Mapping[str, Any]) -> str:
    """What is not as usual, as clauses of a sentence; empty where nothing is."""
    # a switch of a later version is named, though not explained
    return "; ".join(
        f"{DEPARTURES[name]} ({name})" if name in DEPARTURES else name for name in departures(plan)
    )


def described(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The agent, what it is told and what is handed on, as names with what they stand for."""
    learner = plan["learner"]
    version = f", version {learner['version']}" if "version" in learner else ""
    rows = [("agent", f"{learner['name']}{version}")]
    if built := architecture(plan):
        rows.append(("architecture", built))
    if "many_runs" in learner:
        limit = plan.get("cohort_runs")
        together = f"up to {limit} runs at once, as one batch" if limit else "many runs at once"
        rows.append(("trained", together if learner["many_runs"] else "one run at a time"))
    if "parameters" in learner:
        own = own_hyperparameters(plan)
        besides = f", but for {', '.join(own)}" if own else ""
        rows.append(("parameters of one network", f"{learner['parameters']:,}{besides}"))
    if learner.get("source"):
        rows.append(("default hyperparameters", f"from {learner['source']}"))
    if changed := learner.get("changed"):
        rows.append(("asked for otherwise", ", ".join(f"{key}={value}" for key, value in changed.items())))
    rows += [(name, str(plan[name])) for name in ("conditioning", "layout") if name in plan]
    if "new_code" in plan:
        rows.append(("told of a new task", NEW_CODE.get(plan["new_code"], str(plan["new_code"]))))
        usual = "all of the network; its optimiser starts afresh and everything learns"
        rows.append(("handed on", unusual(plan) or usual))
    return rows


def own_hyperparameters(plan: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By arm, the hyperparameters that it has otherwise than the plan's other arms."""
    shared = plan["learner"]["config"]
    found: dict[str, dict[str, Any]] = {}
    for run in plan["runs"]:
        changed = {k: v for k, v in (run.get("config") or {}).items() if shared.get(k) != v}
        if changed:
            found[str(run["arm"])] = changed
    return found
