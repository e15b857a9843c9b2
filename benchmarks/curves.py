"""Learning curves of our PPO and Stable-Baselines3's on one task, with equal hyperparameters.

Both learn on the same native worlds in rollouts of the same shape, so that nothing but the learner
differs. Evaluation is alike too: deterministic policies, the same start states, the same checkpoints.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import gymnasium as gym
import matplotlib
import numpy as np
import pandas as pd
import torch

from baselines.learner import play_episodes
from baselines.ppo import PPO, PPOConfig
from benchmarks import sb3
from benchmarks.record import Store
from mtenvs.vector_env import TaskVectorEnv

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import seaborn as sns
from scipy import stats

TASK, WORLDS, EPISODES = 0, 64, 16
CONDITIONING = "none"  # VecNormalize would normalise a code, ours does not: leave it out
SEEDS = (1, 2, 3, 4, 5)
NAMES = {"ours": "mtenvs PPO", "sb3": "Stable-Baselines3 PPO"}


def _worlds(num_envs: int) -> TaskVectorEnv:
    worlds = gym.make_vec(
        "mt/Biped-v0", num_envs=num_envs, tasks=[TASK], conditioning=CONDITIONING
    ).unwrapped
    assert isinstance(worlds, TaskVectorEnv)
    return worlds


def _ours(checkpoints: list[int]) -> list[dict[str, Any]]:
    """All seeds at once."""
    learner = PPO(worlds := _worlds(WORLDS * len(SEEDS)), SEEDS, PPOConfig())
    judged = _worlds(EPISODES * len(SEEDS))
    rows = []
    for steps in checkpoints:
        learner.train(worlds, steps)
        played = learner.evaluate(judged, list(range(1000, 1000 + EPISODES)) * len(SEEDS))
        for seed, value in zip(SEEDS, played.returns.reshape(len(SEEDS), -1).mean(axis=1), strict=True):
            rows.append({"learner": "ours", "seed": seed, "steps": steps, "return": float(value)})
    return rows


def _theirs(checkpoints: list[int], seed: int) -> list[dict[str, Any]]:
    """One seed."""
    model = sb3.make_ppo(sb3.make_vec("native", WORLDS, TASK, CONDITIONING, seed), seed, PPOConfig())
    judged = _worlds(EPISODES)
    rows = []
    for steps in checkpoints:
        if steps > model.num_timesteps:
            model.learn(steps - model.num_timesteps, reset_num_timesteps=False)
        played = play_episodes(
            lambda observations: sb3.act(model, observations), judged, range(1000, 1000 + EPISODES)
        )
        rows.append(
            {"learner": "sb3", "seed": seed, "steps": steps, "return": float(played.returns.mean())}
        )
    return rows


def _area(frame: pd.DataFrame) -> float:
    """Mean return over the budget, by trapezoids."""
    frame = frame.sort_values("steps")
    steps, returns = frame["steps"].to_numpy(float), frame["return"].to_numpy()
    return float(np.trapezoid(returns, steps) / (steps[-1] - steps[0]))


def curves(store: Store) -> None:
    """Trains, evaluates and draws; what is finished is kept in the table as it comes."""
    updates, between = (2, 1) if store.quick else (147, 7)  # 147 rollouts of 2,048 are 301,056 steps
    seeds = SEEDS[:2] if store.quick else SEEDS
    torch.set_num_threads(1)  # for SB3's small batches a second thread does not pay; here only curves count
    checkpoints = [sb3.ROLLOUT * u for u in range(0, updates + 1, between)]
    store.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name, train in [("ours", _ours), *((f"SB3, seed {s}", s) for s in seeds)]:
        started = time.perf_counter()
        rows += train(checkpoints) if callable(train) else _theirs(checkpoints, train)
        pd.DataFrame(rows).to_csv(store.out / "curves.csv", index=False)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)

    frame = pd.DataFrame(rows)
    areas = {
        learner: [_area(f) for _, f in frame[frame.learner == learner].groupby("seed")]
        for learner in ("ours", "sb3")
    }
    # unequal variances: Welch
    test = stats.ttest_ind(areas["ours"], areas["sb3"], equal_var=False)
    low, high = test.confidence_interval(0.95)
    difference = float(np.mean(areas["ours"]) - np.mean(areas["sb3"]))
    _draw(store, frame)
    last = frame[frame.steps == frame.steps.max()].groupby("learner")["return"].mean()
    text = (
        "## Learning curves: our PPO and Stable-Baselines3's\n\n"
        f"Task {TASK}, {WORLDS} worlds a run, {len(seeds)} seeds of SB3 and {len(SEEDS)} of ours, "
        f"{checkpoints[-1]:,} steps, equal hyperparameters, the same worlds, deterministic policies "
        f"on {EPISODES} episodes. Mean area under the curve: ours {np.mean(areas['ours']):.1f}, SB3 "
        f"{np.mean(areas['sb3']):.1f}; difference **{difference:.1f}**, 95% Welch interval "
        f"[{low:.1f}, {high:.1f}]. Final return: ours {last['ours']:.0f}, SB3 {last['sb3']:.0f}.\n\n"
        "![learning curves](curves.png)\n"
    )
    store.save(
        "curves",
        text=text,
        config=dataclasses.asdict(PPOConfig()),
        areas=areas,
        difference={"mean": difference, "low": float(low), "high": float(high)},
    )
    print(text)


def _draw(store: Store, frame: pd.DataFrame) -> None:
    """Mean with t-band, every seed thin."""
    sns.set_theme(style="whitegrid", palette="colorblind")
    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for (learner, name), colour, style in zip(
        NAMES.items(), sns.color_palette("colorblind"), ("-", "--"), strict=False
    ):
        table = frame[frame.learner == learner].pivot(index="steps", columns="seed", values="return")
        mean, count = table.mean(axis=1), table.shape[1]
        half = stats.t.ppf(0.975, count - 1) * table.std(axis=1) / np.sqrt(count)
        axis.plot(table.index, table, color=colour, linewidth=0.6, alpha=0.6)
        axis.plot(table.index, mean, style, color=colour, linewidth=2.2, label=f"{name}, {count} seeds")
        axis.fill_between(table.index, mean - half, mean + half, color=colour, alpha=0.2, linewidth=0)
    axis.set(
        xlabel="environment steps of a run",
        ylabel="deterministic return",
        title=f"mt/Biped-v0, task {TASK}: mean, 95% t-band, every seed",
    )
    axis.legend(loc="lower right")
    figure.savefig(store.out / "curves.png", dpi=150)
    plt.close(figure)
