"""Which layout of unequal arms transfers better: joints by number, or by place along the arm.

A small leave-one-out on *sampled* arms (none is published): in every fold a network is trained on
seven sampled arms and then on an eighth, once in each layout. All else is equal, seeds included. What
is compared is the mean reward per step over the budget of the held-out arm (area), where the layout
that transfers better is ahead, and that before its first step there (jumpstart).
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats

import mtenvs
from baselines.ppo import PPO, PPOConfig
from benchmarks.record import Store
from mtenvs.spec import Task
from mtenvs.vector_env import TaskVectorEnv

FAMILY = "Octopus"
FOLDS, SEEDS, SOURCES = 8, 2, 7
FIRST_SAMPLE = 5000  # fold f takes the sampled tasks 5000 + 8 f ...; the first of the eight is held out
WORLDS, EPISODES = 56, 32
PRETRAINING = 300_000  # control steps of a run
CHECKPOINTS = (0, 5, 10, 20, 30, 40, 55)  # in rollouts, of num_steps * WORLDS control steps


def _fold(number: int) -> tuple[Task, list[Task]]:
    """The held-out arm of a fold and its sources."""
    first = FIRST_SAMPLE + number * (SOURCES + 1)
    held_out, *sources = (mtenvs.sample_task(FAMILY, first + i) for i in range(SOURCES + 1))
    return held_out, sources


def _worlds(tasks: list[list[Task]], per_task: int, layout: str) -> TaskVectorEnv:
    dealt = [task for run in tasks for task in run for _ in range(per_task)]
    return TaskVectorEnv(FAMILY, num_envs=len(dealt), tasks=dealt, layout=layout)


def _train(layout: str, quick: bool) -> list[dict[str, Any]]:
    """All folds and seeds of a layout at once; and, beside them, networks that start from nothing."""
    runs = list(itertools.product(range(1 if quick else FOLDS), range(SEEDS)))
    folds = [_fold(f) for f, _ in runs]
    targets = [[held_out] for held_out, _ in folds]
    seeds = [1000 * f + s for f, s in runs]
    config = PPOConfig()
    rollout = config.num_steps * WORLDS
    pretraining = 4 * rollout if quick else PRETRAINING

    learner = PPO(worlds := _worlds([s for _, s in folds], WORLDS // SOURCES, layout), seeds, config)
    learner.train(worlds, pretraining)
    # the clock of a learner goes on: the held-out arm's steps are counted from here
    begun = learner.steps
    scratch = PPO(alone := _worlds(targets, WORLDS, layout), [s + 500 for s in seeds], config)
    worlds = _worlds(targets, WORLDS, layout)
    judged = _worlds(targets, EPISODES, layout)
    rows = []
    for checkpoint in CHECKPOINTS[: 2 if quick else None]:
        steps = checkpoint * rollout
        learner.train(worlds, begun + steps)
        scratch.train(alone, steps)
        # start states are shared by the layouts, and fresh at every checkpoint
        starts = [1_000_000 * checkpoint + 1000 * f + e for f, _ in runs for e in range(EPISODES)]
        for arm, agent in (("transfer", learner), ("scratch", scratch)):
            played = agent.evaluate(judged, starts)
            returns = played.returns.reshape(len(runs), -1).mean(axis=1)
            success = played.success.reshape(len(runs), -1).mean(axis=1)
            for (fold, seed), value, share in zip(runs, returns, success, strict=True):
                rows.append(
                    {
                        "layout": layout,
                        "arm": arm,
                        "fold": fold,
                        "links": int(folds[fold * SEEDS][0].parameters["links"]),
                        "seed": seed,
                        "steps": steps,
                        "mean_reward": float(value) / mtenvs.get_family(FAMILY).episode_steps,
                        "success": float(share),
                    }
                )
    return rows


def _area(frame: pd.DataFrame) -> float:
    """Mean reward per step over the steps that were trained, as a step sum from the left."""
    frame = frame.sort_values("steps")
    width = np.diff(frame["steps"].to_numpy(float))
    return float((frame["mean_reward"].to_numpy()[:-1] * width).sum() / width.sum())


def pilot(store: Store) -> None:
    """Trains both layouts and says which one transfers better."""
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    layouts = sorted(mtenvs.get_family(FAMILY).layouts)
    for layout in layouts:
        started = time.perf_counter()
        rows += _train(layout, store.quick)
        print(f"{layout}: {time.perf_counter() - started:.0f} s", flush=True)
    frame = pd.DataFrame(rows)
    store.out.mkdir(parents=True, exist_ok=True)
    frame.round(5).to_csv(store.out / "layout_pilot.csv", index=False)
    lines = ["| measure | " + " | ".join(layouts) + " | difference [95%] | p |", "|---|---|---|---|---|"]
    facts = {}
    for name, arm, measure in (
        ("transfer: area", "transfer", _area),
        ("transfer: jumpstart", "transfer", lambda f: float(f[f.steps == 0]["mean_reward"].iloc[0])),
        (
            "transfer: last",
            "transfer",
            lambda f: float(f[f.steps == f.steps.max()]["mean_reward"].iloc[0]),
        ),
        ("scratch: area", "scratch", _area),
    ):
        # the unit is the fold: its seeds are averaged, and the layouts share fold and starts
        values = {
            layout: [
                np.mean([measure(one) for _, one in fold.groupby("seed")])
                for _, fold in frame[(frame.layout == layout) & (frame.arm == arm)].groupby("fold")
            ]
            for layout in layouts
        }
        a, b = (np.array(values[layout]) for layout in layouts)
        facts[name] = {layout: [float(v) for v in values[layout]] for layout in layouts}
        told = "one fold: no interval | "
        if len(a) > 1:
            test = stats.ttest_rel(a, b)
            low, high = test.confidence_interval(0.95)
            told = f"{np.mean(a - b):+.3f} [{low:+.3f}, {high:+.3f}] | {test.pvalue:.3f}"
        lines.append(f"| {name} | {np.mean(a):.3f} | {np.mean(b):.3f} | {told} |")
    text = (
        "## Layouts of the octopus' arms\n\n"
        f"{frame.fold.nunique()} folds of {SOURCES + 1} sampled arms, {SEEDS} seeds each: "
        f"{PRETRAINING:,} steps on seven of them, then {frame.steps.max():,} on the eighth (links of the "
        f"held-out arms: {', '.join(str(n) for n in frame.groupby('fold').links.first())}); "
        f"{EPISODES} episodes a checkpoint; measured: mean reward per step, which is return over the "
        f"{mtenvs.get_family(FAMILY).episode_steps} steps of an episode. Paired t over folds, "
        f"{layouts[0]} minus {layouts[1]}. Rows: "
        "`layout_pilot.csv`.\n\n" + "\n".join(lines) + "\n"
    )
    store.save("layout_pilot", text=text, config=dataclasses.asdict(PPOConfig()), folds=facts)
    print(text)
