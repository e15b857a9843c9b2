"""``python -m benchmarks.tuning FAMILY``: hyperparameters, chosen on *sampled* tasks alone (PROTOCOL §5).

Every trial costs the same: eight networks that learn a sampled task each from nothing, and four that
learn seven sampled tasks each, as pretraining does. All arms of a plan share the configuration that is
chosen, so it is chosen for both: by the mean over the twelve networks of what each has gained.

First every trial changes one value, then one makes all those changes that helped by themselves. The best
is adopted only if, on sampled tasks that no trial has seen, it is better than the defaults beyond doubt
and learning from nothing is not the worse for it: an arm must not win because the baseline was weakened.

A second round, where the first was not enough, starts from what the first adopted, with other changes.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import json
import math
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

import mtenvs
from baselines.ppo import PPO
from baselines.registry import LearnerDescription, describe_learner, make_learner
from benchmarks.record import machine
from harness import markdown, statistics
from harness.family_code import family_code
from harness.plan import PRESETS
from harness.report.write import write_whole
from harness.run import make_worlds
from harness.workers import use_one_torch_thread
from mtenvs.spec import Task

ALONE, SETS, TOGETHER = 8, 4, 7
"""Tasks that are learnt alone; networks that learn many; tasks of each of these."""
KINDS = ("alone", "many")
WORLDS, EPISODES, CHECKPOINTS = 56, 8, 10
FIRST_SAMPLE = {
    1: {"trials": 20_000, "confirmation": 30_000},
    2: {"trials": 20_000, "confirmation": 40_000},
}
"""Seeds from which on tasks are sampled, by round; no task of a confirmation is anywhere else."""
APART = PRESETS["standard"].min_distance
"""Sampled tasks nearer than this to a published one, in descriptor units, are passed over."""

FIRST: dict[str, dict[str, Any]] = {
    "defaults": {},
    "learning_rate 2.5e-4": {"learning_rate": 2.5e-4},
    "learning_rate 1e-3": {"learning_rate": 1e-3},
    "num_steps 64, 16 minibatches": {"num_steps": 64, "num_minibatches": 16},
    "update_epochs 10": {"update_epochs": 10},
    "ent_coef 0.003": {"ent_coef": 0.003},
    "initial_log_std 0": {"initial_log_std": 0.0},
    "hidden 128, 128": {"hidden": [128, 128]},
}
"""Trials of the first round by name: what they change of the agent's defaults for all families."""
SECOND: dict[str, dict[str, Any]] = {
    "defaults": {},
    "learning_rate 2.5e-4": {"learning_rate": 2.5e-4},
    "num_steps 64, 16 minibatches": {"num_steps": 64, "num_minibatches": 16},
    "update_epochs 3": {"update_epochs": 3},
}
"""Those of the second: what they change of what the first adopted. All are gentler to the policy, for
networks that learn many tasks stop short of them, however long they are trained."""
CHANGES = {1: FIRST, 2: SECOND}
COMBINED = "all that helped"
LEARNT = 0.02
"""Reward per control step that some trial must gain on a network's tasks, or they tell nothing."""
HEAD = f"""# Tuning

Written by `python -m benchmarks.tuning FAMILY`. Only *sampled* tasks were learnt, none of the published
ones nor any within 0.1 of them in descriptor units, and the same ones in every trial: eight by a network
each (*alone*), and four sets of seven by a network each, as pretraining does (*many*). A network's
*gain* is its mean reward per control step over the training beyond that of untrained networks, as a
share of the largest that any trial had on the same tasks; its *end* is its reward at the last three of
ten checkpoints. Differences of gains from the defaults are paired by network, with 95% t intervals;
networks on whose tasks no trial gained {LEARNT} a step tell nothing and are left out. The best trial is
tried again on other sampled tasks (*confirmation*), and is adopted for all arms alike if there the interval
excludes 0 and networks that learn one task from nothing are not worse off on average. *Both* pools the
two phases, and flatters the trial that the first of them chose. A *second round* starts from what the
first adopted, with longer training of many."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Tries hyperparameters on sampled tasks and writes what came of it."""

    family: tyro.conf.Positional[str]
    """Name of the family."""
    budget: int = 300_000
    """Control steps of learning one task."""
    budget_many: int = 900_000
    """Control steps of learning seven."""
    round: Literal[1, 2] = 1
    """2 for other changes, of what was adopted in the first, where that was not enough."""
    processes: int = 2
    """Trials at a time."""
    out: Path = Path("results/tuning")
    """Where FAMILY.json (FAMILY-2.json) and README.md are; trials that are there are not made again."""
    adopt: str = ""
    """Name of the trial to adopt although the rule does not; the page says so."""
    because: str = ""
    """Why, in sentences for the page."""


def tasks_of(family: str, first: int) -> tuple[list[list[Task]], list[list[Task]]]:
    """Tasks sampled from this seed on: those of networks that learn one, and of those that learn many."""
    definition = mtenvs.get_family(family)
    sampled: list[Task] = []
    for seed in itertools.count(first):
        task = mtenvs.sample_task(family, seed)
        if all(definition.distance(task, published) >= APART for published in definition.tasks):
            sampled.append(task)
        if len(sampled) == ALONE + SETS * TOGETHER:
            break
    many = sampled[ALONE:]
    sets = [many[i : i + TOGETHER] for i in range(0, len(many), TOGETHER)]
    return [[task] for task in sampled[:ALONE]], sets


def configuration(family: str, changes: Mapping[str, Any]) -> LearnerDescription:
    """The agent with some changes of its defaults for all families.

    Not of those for this family: what has been adopted must not become what it is compared with.
    """
    return describe_learner("ppo", family, {**PPO.hyperparameters, **changes})


def learn(
    family: str,
    changes: Mapping[str, Any],
    runs: Sequence[Sequence[Task]],
    budget: int,
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Trains some runs side by side.

    Args:
        family: name of the family.
        changes: hyperparameters that are not the agent's defaults.
        runs: tasks of each, equally many.
        budget: control steps of a run.
        seeds: of the runs.

    Returns:
        ``curves``: mean reward per control step of every run, over its tasks, at ``CHECKPOINTS + 1`` steps
        from 0 to the budget, 0 once it has diverged; ``diverged``: number of these.
    """
    use_one_torch_thread()
    learner = configuration(family, changes)
    worlds = make_worlds(family, runs, WORLDS // len(runs[0]), "descriptor", num_threads=1)
    judged = make_worlds(family, runs, EPISODES, "descriptor", num_threads=1)
    agent = make_learner(learner.name, learner.config, worlds, seeds, "cpu")
    length = mtenvs.get_family(family).episode_steps
    curve = []
    for checkpoint in range(CHECKPOINTS + 1):
        agent.train(worlds, budget * checkpoint // CHECKPOINTS)
        starts = [2**31 + checkpoint * judged.num_envs + i for i in range(judged.num_envs)]
        returns = agent.evaluate(judged, starts).returns.reshape(len(runs), -1).mean(axis=1)
        curve.append(np.where(agent.diverged(), 0.0, returns / length))
    return {"curves": np.round(np.transpose(curve), 5).tolist(), "diverged": int(agent.diverged().sum())}


def trial(arguments: Arguments, changes: Mapping[str, Any], phase: str) -> dict[str, Any]:
    """One trial: how well a configuration learns one task, and many."""
    first = FIRST_SAMPLE[arguments.round][phase]
    alone, many = tasks_of(arguments.family, first)
    began = time.perf_counter()
    found = {
        "alone": learn(
            arguments.family, changes, alone, arguments.budget, range(first, first + len(alone))
        ),
        "many": learn(
            arguments.family, changes, many, arguments.budget_many, range(first, first + len(many))
        ),
    }
    return {
        "changes": dict(changes),
        **found,
        "steps": arguments.budget * len(alone) + arguments.budget_many * len(many),
        "seconds": round(time.perf_counter() - began),
    }


def gains(trials: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """What each network of every trial has gained, ``(networks,)`` by trial, first those of one task.

    NaN for networks on whose tasks no trial gained anything.
    """
    curves = {
        name: np.concatenate([np.asarray(one[kind]["curves"]) for kind in KINDS])
        for name, one in trials.items()
    }
    untrained = np.mean([c[:, 0] for c in curves.values()], axis=0)
    gained = {name: c.mean(axis=1) - untrained for name, c in curves.items()}
    most = np.max(list(gained.values()), axis=0)
    return {
        name: np.where(most >= LEARNT, g / np.maximum(most, LEARNT), np.nan) for name, g in gained.items()
    }


def difference(gained: np.ndarray, defaults: np.ndarray) -> tuple[float, float, float]:
    """Mean of the paired differences of gains, and the ends of its 95% t interval."""
    e = statistics.one_sample((gained - defaults)[~np.isnan(gained)])
    return e.value, e.low, e.high


def is_adopted(confirmation: Mapping[str, Mapping[str, Any]], best: str) -> bool:
    """Whether the best trial is better than the defaults beyond doubt, and learning alone not worse."""
    gained = gains(confirmation)
    _, low, _ = difference(gained[best], gained["defaults"])
    alone = np.nanmean((gained[best] - gained["defaults"])[:ALONE])
    return bool(low > 0.0 and alone >= 0.0)


def helpful(
    trials: Mapping[str, Mapping[str, Any]], tried: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """All changes together that gave more than a standard error by themselves, the better one last.

    Args:
        trials: what was found.
        tried: changes of single trials by name.
    """
    gained, found = gains(trials), {}
    for name in set(trials) & set(tried):
        paired = (gained[name] - gained["defaults"])[~np.isnan(gained[name])]
        if len(paired) > 1 and paired.mean() > paired.std(ddof=1) / math.sqrt(len(paired)):
            found[name] = paired.mean()
    together: dict[str, Any] = {}
    for name in sorted(found, key=found.__getitem__):
        together |= tried[name]
    return together


def tune(arguments: Arguments) -> dict[str, Any]:
    """Makes all trials that are missing, and chooses.

    Raises:
        SystemExit: if what is there was made otherwise, or what to adopt was not tried or has no reason.
    """
    if bool(arguments.adopt) != bool(arguments.because):
        raise SystemExit("--adopt takes the name of a trial, and --because says why")
    family = mtenvs.get_family(arguments.family)
    path, before = arguments.out / f"{family.name}.json", {}
    if arguments.round == 2:
        if not path.is_file():
            raise SystemExit(f"a second round starts from the first, which is not in {path}")
        before = json.loads(path.read_text())["adopted"]
        path = path.with_name(f"{family.name}-2.json")
    tried = {name: {**before, **changes} for name, changes in CHANGES[arguments.round].items()}
    asked = {
        "budget": arguments.budget,
        "budget_many": arguments.budget_many,
        "family_code": family_code(family),
        "defaults": configuration(family.name, before).config,
        "changes": tried,
        "sizes": {
            "alone": ALONE,
            "sets": SETS,
            "together": TOGETHER,
            "worlds": WORLDS,
            "episodes": EPISODES,
            "checkpoints": CHECKPOINTS,
            "apart": APART,
            "samples": FIRST_SAMPLE[arguments.round],
        },
    }
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if known and known["asked"] != asked:
        differ = ", ".join(key for key in asked if known["asked"].get(key) != asked[key])
        raise SystemExit(f"{path} was made with other {differ}: remove it, or ask for the same")
    known = known or {
        "family": family.name,
        "round": arguments.round,
        "asked": asked,
        "trials": {},
        "confirmation": {},
    }

    def make(phase: str, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        missing = {name: changes for name, changes in wanted.items() if name not in known[phase]}
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(arguments.processes, context) as pool:
            made = {pool.submit(trial, arguments, c, phase): name for name, c in missing.items()}
            for future in concurrent.futures.as_completed(made):
                known[phase][made[future]] = future.result()
                write(path, known)
                print(f"{family.name} {phase}: {made[future]}", flush=True)

    make("trials", tried)
    trials = known["trials"]
    # the combination is chosen once: with it among the trials, shares of the largest gain are others
    together = trials[COMBINED]["changes"] if COMBINED in trials else helpful(trials, tried)
    if together and together not in tried.values():
        make("trials", {COMBINED: together})
    means = {name: np.nanmean(gained) for name, gained in gains(trials).items()}
    best = max(means, key=means.__getitem__)
    changes = tried["defaults"]
    if best != "defaults":
        make("confirmation", {"defaults": changes, best: trials[best]["changes"]})
        if is_adopted(known["confirmation"], best):
            changes = trials[best]["changes"]
    if arguments.adopt:
        if arguments.adopt not in trials:
            raise SystemExit(f"{arguments.adopt!r} was not tried: {', '.join(trials)}")
        known["exception"] = {"trial": arguments.adopt, "because": arguments.because}
    if "exception" in known:
        changes = trials[known["exception"]["trial"]]["changes"]
    known |= {"best": best, "adopted": changes, "machine": machine()}
    write(path, known)
    return known


def write(path: Path, known: Mapping[str, Any]) -> None:
    """Keeps the record, and the page of all families' records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(known) + "\n").encode())
    records = [json.loads(p.read_text()) for p in sorted(path.parent.glob("*.json"), key=lambda p: p.stem)]
    (path.parent / "README.md").write_text(page(records))


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """The page for people."""
    parts = [HEAD]
    for one in records:
        asked, trials, later = one["asked"], one["trials"], one.get("round", 1) == 2
        steps = max(t["steps"] for t in trials.values())
        parts.append(
            f"\n## {one['family']}{', second round' if later else ''}\n\n"
            f"{asked['budget']:,} control steps alone, {asked['budget_many']:,} of many; "
            f"{steps:,} steps a trial. Defaults{', as the first round adopted them' if later else ''}: "
            f"`{json.dumps(asked['defaults'])}`.\n"
        )
        rows = []
        for phase in ("trials", "confirmation"):
            gained = gains(one[phase]) if one[phase] else {}
            for name, shares in gained.items():
                lost = sum(one[phase][name][kind]["diverged"] for kind in KINDS)
                told = ""
                if name != "defaults" and "defaults" in gained:
                    mean, low, high = difference(shares, gained["defaults"])
                    told = f"{mean:+.3f}" + ("" if math.isnan(low) else f" [{low:+.3f}, {high:+.3f}]")
                alone, many = np.nanmean(shares[:ALONE]), np.nanmean(shares[ALONE:])
                ends = [f"{np.mean(np.asarray(one[phase][name][k]['curves'])[:, -3:]):.2f}" for k in KINDS]
                rows.append([phase, name, f"{alone:.3f}", f"{many:.3f}", told, *ends, f"{lost}"])
        if one["confirmation"] and "best" in one:
            # no network is in both; each one's gain is a share of what its own phase had at most
            both = [gains(one[phase]) for phase in ("trials", "confirmation")]
            pair = [np.concatenate([g[name] for g in both]) for name in (one["best"], "defaults")]
            mean, low, high = difference(*pair)
            told = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
            rows.append(["both", one["best"], "", "", told, "", "", ""])
        columns = ("phase", "trial", "alone", "many", "difference", "alone, end", "many, end", "diverged")
        parts.append(markdown.table(columns, rows))
        if "adopted" in one:
            made = one["machine"]
            against = one.get("exception")
            parts.append(
                f"\nBest: {one['best']}. Adopted: "
                f"{json.dumps(one['adopted']) if one['adopted'] else 'the defaults'}"
                + (f", **against the rule above**: {against['because']}\n\n" if against else ".\n\n")
                + f"`python -m benchmarks.tuning {one['family']}{' --round 2' if later else ''} "
                f"--budget {asked['budget']} --budget-many {asked['budget_many']}"
                + (f' --adopt "{against["trial"]}" --because ...' if against else "")
                + f"`; {made['cpu']}, {made['cores']} cores, Python "
                f"{made['python']}, mujoco {made['packages']['mujoco']}, torch {made['packages']['torch']}."
                + (f" {one['note']}" if "note" in one else "")
            )
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    tune(tyro.cli(Arguments))
