"""Learning curves of our PPO in MuJoCo Warp's worlds, on its CPU device, and in C MuJoCo's.

Everything but the backend is alike: task, worlds a run, steps, hyperparameters. Noise and shuffles come
from other generators there, so the runs are other runs, and their seeds are others too: distributions are
compared. Every network is judged in C MuJoCo's worlds; the last ones in both, from the same starts.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from baselines.ppo import PPO, PPOConfig
from benchmarks.record import Store
from mtenvs.make import make_vector_env
from mtenvs.vector_env import VectorWorlds

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import seaborn as sns
from scipy import stats

FAMILY, TASK = "Biped", 0
RUNS, WORLDS, EPISODES = 12, 64, 16
ROLLOUTS, BETWEEN = 72, 6
"""Of 2,048 steps a run each, and of these those between two evaluations."""
SEEDS = {"batch": range(1, 1 + RUNS), "warp": range(101, 101 + RUNS)}
NAMES = {"batch": "C MuJoCo", "warp": "MuJoCo Warp"}


def _worlds(backend: str, num_envs: int) -> VectorWorlds:
    device = "cpu" if backend == "warp" else None
    return make_vector_env(FAMILY, num_envs, backend=backend, device=device, tasks=[TASK])


def _train(backend: str, runs: int, checkpoints: list[int]) -> tuple[PPO, list[dict[str, Any]]]:
    """Trains a cohort on one backend and judges it in C MuJoCo's worlds."""
    worlds = _worlds(backend, WORLDS * runs)
    learner = PPO(worlds, list(SEEDS[backend])[:runs], PPOConfig())  # type: ignore[arg-type]
    judged = _worlds("batch", EPISODES * runs)
    rows = []
    for steps in checkpoints:
        learner.train(worlds, steps)
        for run, value in enumerate(_returns(learner, judged)):
            rows.append({"backend": backend, "run": run, "steps": steps, "return": float(value)})
    return learner, rows


def _returns(learner: PPO, worlds: VectorWorlds) -> np.ndarray:
    """Mean return of every run, ``(R,)``."""
    played = learner.evaluate(worlds, list(range(1000, 1000 + EPISODES)) * learner.num_runs)
    return played.returns.reshape(learner.num_runs, -1).mean(axis=1)


def _area(frame: pd.DataFrame) -> float:
    """Mean return over the budget, by trapezoids."""
    frame = frame.sort_values("steps")
    steps, returns = frame["steps"].to_numpy(float), frame["return"].to_numpy()
    return float(np.trapezoid(returns, steps) / (steps[-1] - steps[0]))


def _interval(result: Any, mean: float) -> dict[str, float]:
    low, high = result.confidence_interval(0.95)
    return {"mean": float(mean), "low": float(low), "high": float(high)}


def curves(store: Store) -> None:
    """Trains on both backends, judges, compares and draws."""
    runs, rollouts, between = (2, 2, 1) if store.quick else (RUNS, ROLLOUTS, BETWEEN)
    rollout = PPOConfig().num_steps * WORLDS
    checkpoints = [rollout * u for u in range(0, rollouts + 1, between)]
    rows: list[dict[str, Any]] = []
    crossed: list[dict[str, Any]] = []
    seconds = {}
    for backend in NAMES:
        started = time.perf_counter()
        learner, found = _train(backend, runs, checkpoints)
        seconds[backend] = time.perf_counter() - started
        rows += found
        print(f"{backend}: {seconds[backend]:.0f} s", flush=True)
        by = {judge: _returns(learner, _worlds(judge, EPISODES * runs)) for judge in NAMES}
        crossed += [{"trained": backend, "run": r, **{j: float(by[j][r]) for j in by}} for r in range(runs)]
    frame = pd.DataFrame(rows)
    areas = {b: [_area(f) for _, f in frame[frame.backend == b].groupby("run")] for b in NAMES}
    # unequal variances: Welch
    welch = stats.ttest_ind(areas["warp"], areas["batch"], equal_var=False)
    area = _interval(welch, np.mean(areas["warp"]) - np.mean(areas["batch"]))
    # the same network from the same starts in both: pairs
    gaps = np.array([row["warp"] - row["batch"] for row in crossed])
    paired = _interval(stats.ttest_1samp(gaps, 0.0), gaps.mean())
    last = frame[frame.steps == frame.steps.max()].groupby("backend")["return"].mean()
    level = float(np.mean([row["batch"] for row in crossed]))
    _draw(store, frame)
    text = (
        "## Learning in MuJoCo Warp's worlds and in C MuJoCo's\n\n"
        f"mt/{FAMILY}-v0, task {TASK}, {WORLDS} worlds a run, {runs} runs on each backend, "
        f"{checkpoints[-1]:,} steps, Warp on its CPU device; judged in C MuJoCo's worlds on {EPISODES} "
        f"episodes. Mean area under the curve: Warp {np.mean(areas['warp']):.1f}, C "
        f"{np.mean(areas['batch']):.1f}; difference **{area['mean']:.1f}**, 95% Welch interval "
        f"[{area['low']:.1f}, {area['high']:.1f}]. Final return: Warp {last['warp']:.0f}, C "
        f"{last['batch']:.0f}. The {len(crossed)} last networks, played in both from the same starts: mean "
        f"return {level:.1f} in C MuJoCo's worlds; in Warp's higher by **{paired['mean']:.2f}**, 95% "
        f"interval over networks [{paired['low']:.2f}, {paired['high']:.2f}].\n\n"
        "![learning curves of both backends](warp_curves.png)\n"
    )
    store.save(
        "warp_curves",
        text=text,
        config=dataclasses.asdict(PPOConfig()),
        curves=rows,
        areas=areas,
        area_difference=area,
        crossed=crossed,
        crossed_difference=paired,
        seconds=seconds,
    )
    print(text)


def _draw(store: Store, frame: pd.DataFrame) -> None:
    """Mean with t-band, every run thin."""
    store.out.mkdir(parents=True, exist_ok=True)
    sns.set_theme(style="whitegrid", palette="colorblind")
    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for (backend, name), colour, style in zip(
        NAMES.items(), sns.color_palette("colorblind"), ("-", "--"), strict=False
    ):
        table = frame[frame.backend == backend].pivot(index="steps", columns="run", values="return")
        mean, count = table.mean(axis=1), table.shape[1]
        half = stats.t.ppf(0.975, count - 1) * table.std(axis=1) / np.sqrt(count)
        axis.plot(table.index, table, color=colour, linewidth=0.5, alpha=0.5)
        axis.plot(table.index, mean, style, color=colour, linewidth=2.2, label=f"{name}, {count} runs")
        axis.fill_between(table.index, mean - half, mean + half, color=colour, alpha=0.2, linewidth=0)
    axis.set(
        xlabel="environment steps of a run",
        ylabel="deterministic return, in C MuJoCo's worlds",
        title=f"mt/{FAMILY}-v0, task {TASK}: mean, 95% t-band, every run",
    )
    axis.legend(loc="upper left")
    figure.savefig(store.out / "warp_curves.png", dpi=110)
    plt.close(figure)
