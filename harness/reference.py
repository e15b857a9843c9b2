"""Makes a family's reference scores: random, zero and well-trained returns of every published task.

Nothing here is shared with the runs that are compared: the seeds come from a root of their own.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import mtenvs
from baselines.learner import play_episodes
from baselines.registry import describe_learner, make_learner
from harness.run import make_worlds, published_numbers, use_one_torch_thread

VERSION = "1"
ROOT_SEED = 20_261_120
"""Apart from every plan's seeds, which are hashes."""


@dataclasses.dataclass(frozen=True)
class ReferenceConfig:
    """How reference scores are made."""

    steps: int = 1_500_000
    """Control steps of single-task training, well past any plan's budget."""
    seeds: int = 3
    """Trainings per task."""
    episodes: int = 100
    """Evaluation episodes per training, and of the random and the zero policy."""
    worlds_per_run: int = 56
    """Worlds of every training."""
    learner: str = "ppo"
    """Name of the learner."""


def make_reference(
    family: str,
    config: ReferenceConfig,
    device: str = "cpu",
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Measures all reference scores of a family; what :func:`write_reference` writes.

    Raises:
        ValueError: for an unknown family or learner.
    """
    use_one_torch_thread()
    tasks = mtenvs.tasks(family)
    numbers = published_numbers(family)
    learner = describe_learner(config.learner, family)
    root = np.random.SeedSequence(ROOT_SEED)
    evaluation = [int(s) for s in root.spawn(1)[0].generate_state(config.episodes, np.uint32)]
    entropies = root.spawn(1)[0].generate_state(config.seeds * len(numbers), np.uint64)

    policies = make_worlds(family, [[k] for k in numbers], config.episodes, "none")
    rng = np.random.default_rng(root.spawn(1)[0])
    shape = (policies.num_envs, policies.num_actions)
    seeds = evaluation * len(numbers)
    random = play_episodes(lambda _: rng.uniform(-1, 1, shape).astype(np.float32), policies, seeds)
    zero = play_episodes(lambda _: np.zeros(shape, np.float32), policies, seeds)

    # one cohort per seed: every task is one run of it
    trained, success = [], []
    for s in range(config.seeds):
        worlds = make_worlds(family, [[k] for k in numbers], config.worlds_per_run, "descriptor")
        mine = [int(e) >> 4 for e in entropies[s * len(numbers) : (s + 1) * len(numbers)]]
        agent = make_learner(learner.name, learner.config, worlds, mine, device)
        agent.train(worlds, config.steps, progress)
        if agent.diverged().any():
            raise RuntimeError(f"reference training diverged on tasks {np.flatnonzero(agent.diverged())}")
        test = make_worlds(family, [[k] for k in numbers], config.episodes, "descriptor")
        played = agent.evaluate(test, seeds)
        trained.append(played.returns.reshape(len(numbers), -1).mean(axis=1))
        success.append(played.success.reshape(len(numbers), -1).mean(axis=1))

    def spread(values: np.ndarray) -> dict[str, float]:
        return {"mean": round(float(values.mean()), 3), "std": round(float(values.std(ddof=1)), 3)}

    records = {}
    for k, task in enumerate(tasks):
        seeds_of_task = np.array([row[k] for row in trained])
        records[task.name] = {
            "random": spread(random.returns.reshape(len(tasks), -1)[k]),
            "zero": spread(zero.returns.reshape(len(tasks), -1)[k]),
            "reference": {
                **(
                    spread(seeds_of_task)
                    if config.seeds > 1
                    else {"mean": round(float(seeds_of_task[0]), 3)}
                ),
                "seeds": [round(float(v), 3) for v in seeds_of_task],
                "success": round(float(np.mean([row[k] for row in success])), 4),
            },
        }
    return {
        "version": VERSION,
        "family": mtenvs.get_family(family).id,
        "mtenvs": mtenvs.__version__,
        "command": f"mtenvs reference {family}",
        "root_seed": ROOT_SEED,
        "config": dataclasses.asdict(config),
        "learner": dataclasses.asdict(learner),
        "tasks": records,
    }


def shortcomings(record: dict[str, Any]) -> list[str]:
    """What speaks against publishing the tasks, in words: empty if every task is shown learnable."""
    found = []
    for name, task in record["tasks"].items():
        low, high = task["random"]["mean"], task["reference"]["mean"]
        noise = 3.0 * max(task["random"]["std"], task["reference"].get("std", 0.0))
        if high - low <= noise:
            found.append(f"{name}: reference {high} is not clearly above random {low}")
        elif (idle := (task["zero"]["mean"] - low) / (high - low)) >= 0.1:
            found.append(f"{name}: doing nothing scores {idle:.2f}")
    return found


def write_reference(record: dict[str, Any], path: Path) -> None:
    """Writes reference scores, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(part, path)
