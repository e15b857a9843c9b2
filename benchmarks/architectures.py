"""Speed of training of each architecture: against concatenation, and ten runs of it against one.

The numbers of parameters are about equal. Worlds are those of a leave-one-out: 56 of every run, eight
of each of seven bipeds, told by one-hot codes, which every architecture understands. Physics is included.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from baselines.architectures import ARCHITECTURES
from baselines.ppo import PPO, PPOConfig
from baselines.registry import count_parameters, scaled
from benchmarks.record import Store, compare
from benchmarks.training import Ours, measure
from mtenvs.vector_env import TaskVectorEnv

RUNS, CONDITIONING = 10, "one_hot"
TASKS = tuple(task for task in range(7) for _ in range(8))
ROLLOUT = PPOConfig().num_steps * len(TASKS)
SLOWEST, STACKED = 1.5, 6.5  # goals: times concatenation's time, and times the time of one run


def equal_budgets() -> dict[str, tuple[PPOConfig, int]]:
    """Hyperparameters of every architecture, and its parameters: about as many as the default has."""
    worlds = TaskVectorEnv("Biped", num_envs=1, conditioning=CONDITIONING)
    default: dict[str, Any] = dict(PPO.hyperparameters)
    wanted, found = count_parameters("ppo", default, worlds), {}
    for name in ARCHITECTURES:
        hidden = scaled("ppo", {**default, "architecture": name}, worlds, wanted)["hidden"]
        config = dataclasses.replace(PPOConfig(), architecture=name, hidden=tuple(hidden))
        found[name] = config, count_parameters("ppo", dataclasses.asdict(config), worlds)
    return found


def architectures(store: Store) -> None:
    """All architectures in turn, ten runs and one of each."""
    # whole rollouts, and of all sides as many: bodies that walk cost more physics than bodies that fall
    steps, repeats = (ROLLOUT, 1) if store.quick else (5 * ROLLOUT, 7)
    budgets = equal_budgets()
    # one torch thread, as in harness/run.py
    sides = {
        f"{name}, {runs}": [Ours(runs, 1, TASKS, CONDITIONING, config)]
        for name, (config, _) in budgets.items()
        for runs in (RUNS, 1)
    }
    speeds = measure(sides, steps, repeats)

    rows = []
    for name, (config, parameters) in budgets.items():
        network = f"{parameters:,} parameters, hidden {list(config.hidden)}"
        what = f"{name}, {RUNS} runs x {len(TASKS)} worlds"
        if name != "concatenation":
            found = compare(
                what,
                f"concatenation, {budgets['concatenation'][1]:,} parameters",
                speeds[f"{name}, {RUNS}"],
                speeds[f"concatenation, {RUNS}"],
                goal=round(1.0 / SLOWEST, 2),
            )
            times = 1.0 / found.ratio["median"]
            note = f"{network}; takes {times:.2f} times as long per step, the goal is at most {SLOWEST}"
            rows.append(dataclasses.replace(found, note=note))
        many, one = speeds[f"{name}, {RUNS}"], speeds[f"{name}, 1"]
        found = compare(what, "1 run", many, one, goal=round(RUNS / STACKED, 2))
        times = RUNS / found.ratio["median"]
        note = f"{network}; {RUNS} runs take {times:.1f} times as long as 1, the goal is at most {STACKED}"
        rows.append(dataclasses.replace(found, note=note))
    store.save("architectures", rows, config=dataclasses.asdict(PPOConfig()))
