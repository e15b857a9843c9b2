"""What ``-v0`` is does not change: tasks, codes, physics, rewards and reference scores of every family.

``tests/frozen/FAMILY-v0.json`` holds them. Results of a version are compared over years and between
machines, so that whatever this test finds belongs into a new version. A family that is not published yet is
written by ``python tests/test_frozen.py FAMILY``, once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mtenvs
from harness.reference_scores import load_reference
from mtenvs.env import TaskEnv

FROZEN = Path(__file__).parent / "frozen"
STEPS = 20
"""Control steps that are compared: few, as processors round differently and that grows."""


def play(family: mtenvs.Family, number: int) -> dict[str, Any]:
    """The start of an episode under actions that are the same everywhere."""
    env = TaskEnv(family, task=number)
    observation, _ = env.reset(seed=number)
    body = env.observation_slices.body
    rewards = dict.fromkeys(family.reward_terms, 0.0)
    size = env.action_space.shape[0]
    first = observation[body]
    steps = 0
    for steps in range(1, STEPS + 1):
        action = 0.5 * np.sin(0.7 * steps + np.arange(size)).astype(np.float32)
        observation, _, terminated, truncated, info = env.step(action)
        for term in rewards:
            rewards[term] += float(info[f"reward_{term}"])
        if terminated or truncated:
            break
    return {
        "steps": steps,
        "terms": {term: round(value, 7) for term, value in rewards.items()},
        "first_observation": np.round(first, 6).tolist(),
        "last_observation": np.round(observation[body], 6).tolist(),
    }


def code(family: mtenvs.Family, number: int) -> list[float]:
    """What a network is told of a task."""
    env = TaskEnv(family, task=number)
    observation, _ = env.reset(seed=0)
    return [round(float(x), 6) for x in observation[env.observation_slices.code]]


def describe(family: mtenvs.Family) -> dict[str, Any]:
    """Everything that results of a family's version depend on."""
    reference = load_reference(family.name, family.version)
    return {
        "tasks": {task.name: dict(task.parameters) for task in family.tasks},
        "parameters": {p.name: [p.nominal, p.low, p.high] for p in family.parameters},
        "codes": {task.name: code(family, task.number) for task in family.tasks},
        "episode_steps": family.episode_steps,
        "frame_skip": family.frame_skip,
        "reference": reference["scores"],
        "play": {task.name: play(family, task.number) for task in family.tasks},
    }


@pytest.mark.parametrize("path", sorted(FROZEN.glob("*.json")), ids=lambda path: path.stem)
def test_a_published_version_is_what_it_was(path: Path) -> None:
    family = mtenvs.get_family(path.stem.rpartition("-v")[0])
    assert family.version == int(path.stem.rpartition("-v")[2])
    frozen, now = json.loads(path.read_text()), describe(family)
    played, plays = frozen.pop("play"), now.pop("play")
    # what a list gained since is no change: folds of plans name their tasks
    for entry in ("tasks", "codes", "reference"):
        now[entry] = {name: now[entry].get(name) for name in frozen[entry]}
    assert now == frozen
    for name, expected in played.items():
        assert plays[name]["steps"] == expected["steps"], name
        assert plays[name]["terms"] == pytest.approx(expected["terms"], abs=1e-4), name
        for which in ("first_observation", "last_observation"):
            np.testing.assert_allclose(plays[name][which], expected[which], atol=1e-3, err_msg=name)


def test_every_family_that_has_full_results_is_frozen() -> None:
    """Those of ``results/FAMILY``; of drafts there are only looks, and agents compared."""
    results = Path(__file__).parents[1] / "results"
    published = set()
    for plan in results.glob("*/plan.json"):
        told = json.loads(plan.read_text())
        if not told["exploratory"]:
            published.add(f"{told['family']}-v{told['version']}.json")
    assert published <= {path.name for path in FROZEN.glob("*.json")}


if __name__ == "__main__":
    chosen = mtenvs.get_family(sys.argv[1])
    FROZEN.mkdir(exist_ok=True)
    target = FROZEN / f"{chosen.name}-v{chosen.version}.json"
    if target.exists():
        raise SystemExit(f"{target} is frozen: what has changed since belongs into another version")
    target.write_text(json.dumps(describe(chosen), indent=1) + "\n")
