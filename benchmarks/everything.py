"""One network for everything: all families' tasks together against one network for each family.

Exploratory: nothing of it was planned in advance, and no hyperparameters were tuned for it; those that
families have of their own are left aside, so that all networks have the same. Every task is given equally
many worlds and control steps in both arms, so that networks make equally many updates, the one network of
larger batches.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

import mtenvs
from baselines.ppo import PPO, PPOConfig
from benchmarks.record import Store
from harness import markdown, statistics
from harness.family_code import family_code
from harness.reference_scores import load_reference
from harness.report.write import write_whole
from harness.run import make_worlds
from harness.workers import use_one_torch_thread
from mtenvs.registry import ALL_FAMILIES, get_families

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import seaborn as sns

SEEDS = 5
WORLDS, EPISODES = 7, 8
"""Of each task: worlds in training, episodes at each checkpoint."""
BUDGET, CHECKPOINTS = 100_000, 10
"""Control steps of each task; checkpoints after the first, evenly spaced."""
ONE, OWN, WIDE = "one network", "one for each family", "one, twice as wide"
SCALED = "one, rewards scaled by task"
ARMS: dict[str, dict[str, Any]] = {
    ONE: {},
    OWN: {},
    WIDE: {"hidden": (128, 128)},
    SCALED: {"return_scale": "task"},
}
"""What each changes of the defaults. Families' returns are of unlike sizes, and one scale for all rewards
might leave those of some too small to be learned from: hence the last."""
ENDS = ("random", "reference")
"""Returns of the scores 0 and 1."""
COLUMNS = ["arm", "family", "task", "seed", "steps", "score"]


def learn(name: str, changes: Mapping[str, Any], seeds: int, budget: int) -> list[dict[str, Any]]:
    """Trains networks of a family, or of the set of all, on all their tasks.

    Args:
        name: of the family or set.
        changes: hyperparameters that are not the defaults.
        seeds: number of networks.
        budget: control steps of each task.

    Returns:
        One row per task, seed and checkpoint: ``family, task, seed, steps`` (of each task) and ``score``.
    """
    families = get_families(name)
    tasks = list(families.tasks)
    runs = [tasks] * seeds
    worlds = make_worlds(name, runs, WORLDS, "descriptor", num_threads=1)
    judged = make_worlds(name, runs, EPISODES, "descriptor", num_threads=1)
    agent = PPO(worlds, range(seeds), PPOConfig(**changes))
    scores = references()
    low, high = np.transpose([[scores[task.family][task.name][k] for k in ENDS] for task in tasks])
    rows = []
    for checkpoint in range(CHECKPOINTS + 1):
        steps = budget * checkpoint // CHECKPOINTS
        agent.train(worlds, steps * len(tasks))
        starts = [2**31 + checkpoint * judged.num_envs + i for i in range(judged.num_envs)]
        returns = agent.evaluate(judged, starts).returns.reshape(seeds, len(tasks), EPISODES).mean(axis=2)
        # a network that diverged is worth nothing from there on, and stays in
        found = np.where(agent.diverged()[:, None], 0.0, (returns - low) / (high - low))
        for seed, of_run in enumerate(found):
            for task, score in zip(tasks, of_run, strict=True):
                row = {"family": task.family, "task": task.name, "seed": seed, "steps": steps}
                rows.append({**row, "score": round(float(score), 4)})
    return rows


def references() -> dict[str, dict[str, dict[str, float]]]:
    """Reference scores by family and task."""
    families = [mtenvs.get_family(name) for name in mtenvs.families()]
    return {family.name: load_reference(family.name, family.version)["scores"] for family in families}


def everything(store: Store) -> None:
    """Trains what is missing, and says whether one network for all families is worse than one for each.

    Raises:
        SystemExit: if what is there was made otherwise.
    """
    use_one_torch_thread()
    seeds, budget = (2, 4_000) if store.quick else (SEEDS, BUDGET)
    facts = {
        "seeds": seeds,
        "budget": budget,
        "checkpoints": CHECKPOINTS,
        "worlds": WORLDS,
        "episodes": EPISODES,
        "scores": references(),
        "arms": json.loads(json.dumps(ARMS)),
        "config": json.loads(json.dumps(dataclasses.asdict(PPOConfig()))),
        "family_code": {name: family_code(mtenvs.get_family(name)) for name in mtenvs.families()},
    }
    path, asked = store.out / "everything.csv", store.out / "everything.settings"
    store.out.mkdir(parents=True, exist_ok=True)
    before = json.loads(asked.read_text()) if asked.is_file() else {}
    if path.is_file() and before != facts:
        differ = ", ".join(key for key in facts if before.get(key) != facts[key])
        raise SystemExit(f"{path} was made with other {differ}: remove it and {asked}, or ask for the same")
    asked.write_text(json.dumps(facts) + "\n")
    known = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=COLUMNS)
    for arm, changes in ARMS.items():
        for name in mtenvs.families() if arm == OWN else (ALL_FAMILIES,):
            there = known[(known["arm"] == arm) & ((known["family"] == name) | (name == ALL_FAMILIES))]
            if len(there):
                continue
            began = time.perf_counter()
            made = pd.DataFrame(learn(name, changes, seeds, budget)).assign(arm=arm)
            known = pd.concat([known, made[COLUMNS]]) if len(known) else made[COLUMNS]
            # what is there counts as trained, so it is whole or not at all
            write_whole(path, known.to_csv(index=False).encode())
            print(f"{arm}: {name}, {time.perf_counter() - began:.0f} s", flush=True)
    text = summary(known)
    draw(known, store)
    store.save("everything", text=text, **facts)
    print(text)


def areas(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean score over the budget and at its end, of each network on each family: ``area, last``."""
    keys = ["arm", "family", "seed"]
    # the last three checkpoints, as everywhere
    late = rows["steps"] >= np.sort(rows["steps"].unique())[-3]
    area = rows.groupby(keys)["score"].mean().rename("area")
    return pd.concat([area, rows[late].groupby(keys)["score"].mean().rename("last")], axis=1).reset_index()


def summary(rows: pd.DataFrame) -> str:
    """The table as Markdown."""
    found = areas(rows)
    opening = (
        "## One network for everything\n\n"
        f"{rows['seed'].nunique()} networks of each kind; {int(rows['steps'].max()):,} control steps of "
        "each task; told the family and the task's descriptor; the same hyperparameters everywhere. *Area* "
        f"is the mean score over {rows['steps'].nunique()} checkpoints, *last* that of the last three; "
        "differences to one network for each family with 95% Welch t intervals over networks, each for "
        "itself: nothing is adjusted for their number. Every task has equally many worlds and steps in all "
        "arms, so that the one network makes as many updates as one of a family, not as all of them "
        "together, of batches as much larger as it has more tasks. *Rewards scaled by task* divides every "
        "task's by the deviation of its own returns, not of all. Exploratory.\n"
    )
    lines = []
    for family, of_family in found.groupby("family"):
        own = of_family[of_family["arm"] == OWN]
        for arm in ARMS:
            one = of_family[of_family["arm"] == arm]
            cells = []
            for measure in ("area", "last"):
                cells += [
                    f"{one[measure].mean():.2f}",
                    "" if arm == OWN else told(one[measure], own[measure]),
                ]
            lines.append([str(family), arm, *cells])
    found_table = markdown.table(("family", "arm", "area", "difference", "last", "difference"), lines)
    return f"{opening}\n{found_table}\n"


def told(a: pd.Series, b: pd.Series) -> str:
    """A difference of means with its interval."""
    found = statistics.difference(b.to_numpy(), a.to_numpy())
    if found.reason:
        return f"{found.value:+.2f}"
    return f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def draw(rows: pd.DataFrame, store: Store) -> None:
    """Learning curves of each family, means over tasks with 95% t intervals over networks."""
    curves = rows.groupby(["arm", "family", "seed", "steps"], as_index=False)["score"].mean()
    families = sorted(curves["family"].unique())
    with sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(1, len(families), figsize=(3.2 * len(families), 3.2), sharey=True)
    for axis, family in zip(axes, families, strict=True):
        for colour, arm in zip(sns.color_palette("colorblind"), ARMS, strict=False):
            one = curves[(curves["arm"] == arm) & (curves["family"] == family)]
            at = one.pivot(index="steps", columns="seed", values="score")
            found = [statistics.one_sample(scores) for scores in at.to_numpy()]
            axis.plot(at.index / 1000, [e.value for e in found], color=colour, label=arm)
            low, high = ([getattr(e, end) for e in found] for end in ("low", "high"))
            axis.fill_between(at.index / 1000, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.set(title=family, xlabel="thousand steps of each task")
    axes[0].set_ylabel("score")
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(store.out / "everything.png", dpi=150)
    plt.close(figure)
