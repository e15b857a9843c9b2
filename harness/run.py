"""Trains the runs of a plan, cohort by cohort, and stores what it sees."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mtenvs
from baselines.learner import Episodes, Learner
from baselines.registry import make_learner
from harness.plan import NO_FOLD, PlanError, checkpoints_of, evaluation_seeds, load_plan
from harness.store import COMPLETE, Store
from mtenvs import registry
from mtenvs.conditioning import Encoding
from mtenvs.registry import TaskLike
from mtenvs.vector_env import TaskVectorEnv

PROBE_SECONDS = 6.0
"""How long a plan's cost is probed."""

Progress = Callable[[int], object]
"""Called with control steps just trained."""


def checkpoint_path(directory: Path, run_id: str) -> Path:
    """Where a pretrained network is kept."""
    return directory / "checkpoints" / run_id


def make_worlds(
    family: str,
    tasks_of_runs: Sequence[Sequence[TaskLike]],
    per_task: int,
    conditioning: str,
    layout: str | None = None,
    codes: np.ndarray | None = None,
) -> TaskVectorEnv:
    """Worlds laid out ``[run, task, env]``.

    Args:
        family: name of the family.
        tasks_of_runs: the tasks that each run is given.
        per_task: worlds for each of them.
        conditioning: what observations tell of the task.
        layout: how bodies of unequal size share the observation; ``None`` for the family's default.
        codes: what to tell every world instead of its task's code, ``(worlds, code_size)``.
    """
    tasks = [task for run in tasks_of_runs for task in run for _ in range(per_task)]
    return TaskVectorEnv(
        family, num_envs=len(tasks), tasks=tasks, conditioning=conditioning, layout=layout, codes=codes
    )


def check_suite(plan: Mapping[str, Any]) -> None:
    """Makes sure that what was frozen is what would be trained.

    Raises:
        harness.plan.PlanError: if the suite's version or a published task differs from the plan's.
    """
    family = registry.get_family(plan["family"])
    made, present = (plan["mtenvs"], plan["version"]), (mtenvs.__version__, family.version)
    if made != present:
        raise PlanError(
            f"the plan was made for mtenvs {made[0]} and {family.name}-v{made[1]}, these are mtenvs "
            f"{present[0]} and {family.name}-v{present[1]}; install that version, or make a new plan"
        )
    now = {task.name: task.to_dict() for task in family.tasks}
    changed = [t["name"] for t in plan["tasks"] if now.get(t["name"]) != t]
    if changed:
        raise PlanError(
            f"published tasks have changed since the plan was frozen: {', '.join(changed)}; restore them "
            "in the family's file, or make a new plan in a new directory"
        )


def check_device(device: str) -> None:
    """Makes sure that a device exists.

    Raises:
        ValueError: otherwise.
    """
    valid = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    if device.split(":")[0] not in valid:
        raise ValueError(f"no device {device!r} on this machine; valid: {', '.join(valid)}")


def use_one_torch_thread() -> None:
    """Leaves the other cores to the physics, unless the user has set OMP_NUM_THREADS.

    PyTorch's threads wait for each other by spinning. These matrices are so small that the waiting,
    against MuJoCo's threads and whatever else runs, costs more than the second core brings: one run of
    56 worlds was seen to train 50 times slower with two threads than with one.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def pending_steps(directory: Path) -> int:
    """Control steps that remain to be trained, summed over runs."""
    plan, status = load_plan(directory), Store(directory).status()
    steps = {run["id"]: run["steps"] for run in plan["runs"]}
    # a cohort is trained as a whole, also where only some of its runs are missing
    open_cohorts = [c for c in plan["cohorts"] if any(status[i] not in COMPLETE for i in c)]
    return sum(steps[i] for cohort in open_cohorts for i in cohort)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a plan will take of this machine."""

    hours: float
    """Training and evaluation, all runs."""
    train_speed: float
    """Control steps per second in training, all runs of a cohort together."""
    test_speed: float
    """Control steps per second in evaluation."""
    megabytes: float
    """Of rows and checkpoints."""


ROW_BYTES = 260
"""Of a stored row."""


def estimate_cost(directory: Path, device: str = "cpu") -> Cost:
    """Estimates what the whole plan takes, from training and evaluating its largest cohort for a moment.

    Nothing is stored. Evaluation is estimated from episodes of full length, and so from above.

    Args:
        directory: of the plan.
        device: where networks live.
    """
    plan = load_plan(directory)
    check_suite(plan)
    use_one_torch_thread()
    by_id = {run["id"]: run for run in plan["runs"]}
    # one that starts from nothing: checkpoints are not there yet
    ready = [c for c in plan["cohorts"] if all(by_id[i]["start"] is None for i in c)]
    cohort = [by_id[i] for i in max(ready, key=len)]
    learner, worlds = _Cohort(directory, plan, Store(directory), cohort, device).learner()
    rollout = plan["learner"]["rollout"] * plan["worlds_per_run"]
    learner.train(worlds, rollout)  # what is only done once
    began, trained = time.perf_counter(), rollout
    while time.perf_counter() - began < PROBE_SECONDS:
        trained = learner.train(worlds, trained + rollout)
    train_speed = (trained - rollout) * len(cohort) / (time.perf_counter() - began)
    worlds.reset(seed=0)
    actions = np.zeros((worlds.num_envs, worlds.num_actions))
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < PROBE_SECONDS / 3:
        worlds.step(actions)
        steps += worlds.num_envs
    test_speed = steps / (time.perf_counter() - began)
    episodes = rows = saved = 0
    wanted = {run["start"] for run in plan["runs"]}
    for run in plan["runs"]:
        points = 1 if run["phase"] == "pretrain" else len(checkpoints_of(plan, run["arm"]))
        rows += points * len(run["tasks"]) + 3 * (run["phase"] == "pretrain")
        episodes += len(run["tasks"]) * (points - 1) * plan["episodes"] + 3 * plan["first_episodes"]
        saved += run["phase"] == "pretrain" or run["id"] in wanted
    family = registry.get_family(plan["family"])
    trained = sum(run["steps"] for run in plan["runs"])
    seconds = trained / train_speed + episodes * family.episode_steps / test_speed
    checkpoint = 3 * 4 * learner.describe()["parameters"]  # weights and Adam's two moments, float32
    size = rows * ROW_BYTES + saved * checkpoint
    return Cost(seconds / 3600, train_speed, test_speed, size / 1e6)


def run_plan(directory: Path, device: str = "cpu", progress: Progress | None = None) -> None:
    """Trains whatever of a plan has no result yet.

    Args:
        directory: of the plan.
        device: where networks live.
        progress: for a progress bar.

    Raises:
        harness.plan.PlanError: if there is no plan, it was edited, or it was made for another suite.
        ValueError: for a device that is not there.
    """
    plan, store = load_plan(directory), Store(directory)
    check_suite(plan)
    check_device(device)
    use_one_torch_thread()
    runs = {run["id"]: run for run in plan["runs"]}
    for cohort in plan["cohorts"]:
        status = store.status()
        # cohorts are the plan's alone: the missing runs are trained beside the same neighbours again
        if any(status[run_id] not in COMPLETE for run_id in cohort):
            _Cohort(directory, plan, store, [runs[run_id] for run_id in cohort], device).train(progress)


class _Cohort:
    """Runs of equal shape, trained together as one batch of networks on one batch of worlds."""

    def __init__(
        self,
        directory: Path,
        plan: Mapping[str, Any],
        store: Store,
        runs: Sequence[Mapping[str, Any]],
        device: str,
    ) -> None:
        self.directory, self.plan, self.store, self.runs = directory, plan, store, runs
        status = store.status()
        self.missing = [r for r, run in enumerate(runs) if status[run["id"]] not in COMPLETE]
        self.device = device

    def learner(self) -> tuple[Learner, TaskVectorEnv]:
        """The learner, started as the plan says, and the worlds to train it on."""
        plan, runs = self.plan, self.runs
        tasks = [run["tasks"] for run in runs]
        worlds = self._worlds(tasks, plan["worlds_per_run"] // len(tasks[0]))
        learner = make_learner(
            plan["learner"]["name"],
            {**plan["learner"]["config"], **runs[0].get("config", {})},
            worlds,
            [run["entropy"] for run in runs],
            self.device,
        )
        for r, run in enumerate(runs):
            if run["start"] is not None:
                self._load(learner, r, run["start"], run["init"])
        return learner, worlds

    def train(self, progress: Progress | None) -> None:
        plan, runs, started = self.plan, self.runs, time.perf_counter()
        learner, worlds = self.learner()
        for r in self.missing:  # only now, when nothing can be refused any more
            self.store.begin(runs[r]["id"])
        if runs[0]["phase"] == "pretrain":
            learner.train(worlds, runs[0]["steps"], progress)
            self._hand_over(learner)
        else:
            for index, step in enumerate(checkpoints_of(plan, runs[0]["arm"])):
                learner.train(worlds, step, progress)
                episodes = plan["first_episodes"] if index == 0 else plan["episodes"]
                self._evaluate(learner, [run["tasks"] for run in runs], index, step, episodes)
        wall = time.perf_counter() - started
        diverged = learner.diverged()
        wanted = {run["start"] for run in plan["runs"]}
        for r in self.missing:
            if runs[r]["id"] in wanted or runs[r]["phase"] == "pretrain":
                path = checkpoint_path(self.directory, runs[r]["id"])
                shutil.rmtree(path, ignore_errors=True)
                learner.save(r, path)
            record = {
                "status": "diverged" if diverged[r] else "finished",
                "steps": runs[r]["steps"],
                "wall_seconds": round(wall / len(runs), 3),  # a run's share of its cohort
                "cohort_runs": len(runs),
                "device": self.device,
                "torch_threads": torch.get_num_threads(),
                **learner.describe(),
            }
            self.store.finish(runs[r]["id"], record)

    def _worlds(
        self,
        tasks: Sequence[Sequence[int]],
        per_task: int,
        told: Sequence[np.ndarray] | None = None,
    ) -> TaskVectorEnv:
        """Worlds ``[run, task, env]`` of tasks given by number.

        Args:
            tasks: of every run.
            per_task: worlds for each.
            told: codes to tell instead of the tasks' own, one for each run and task.
        """
        # by what they are, not by number: the registry refuses a body that is no longer the frozen one
        bodies = [[self.plan["tasks"][k] for k in run_tasks] for run_tasks in tasks]
        codes = None if told is None else np.repeat(np.stack(told), per_task, axis=0)
        return make_worlds(
            self.plan["family"],
            bodies,
            per_task,
            self.runs[0]["conditioning"],
            self.plan.get("layout"),
            codes,
        )

    def _load(self, learner: Learner, r: int, start: str, init: str) -> None:
        try:
            # a learner that only takes over everything need not know of parts
            if init == "all":
                learner.load(r, checkpoint_path(self.directory, start))
            else:
                learner.load(r, checkpoint_path(self.directory, start), part=init)
        except FileNotFoundError as error:
            raise PlanError(
                f"{error}. That network is gone: remove {self.directory / 'runs' / start} and it is "
                "trained again"
            ) from None

    def _hand_over(self, learner: Learner) -> None:
        """Evaluates pretrained networks: on their sources, and on the held-out task with three codes."""
        plan, runs = self.plan, self.runs
        steps = runs[0]["steps"]
        self._evaluate(learner, [run["tasks"] for run in runs], 0, steps, plan["episodes"])
        unseen = [run["fold"] != NO_FOLD and run["fold"] not in run["tasks"] for run in runs]
        if not all(unseen):  # equal in a cohort but for chance: sources of a matrix hold nothing out
            return
        held_out = [[run["fold"]] for run in runs]
        self._evaluate(learner, held_out, 0, steps, plan["first_episodes"])
        if runs[0]["conditioning"] == "none":
            return  # it is told nothing, so there is no other thing to tell it
        family = registry.get_family(plan["family"])
        encoding = Encoding(family, runs[0]["conditioning"], plan.get("layout"))
        mean, wrong = [], []
        for run in runs:
            sources = [family.tasks[k] for k in run["tasks"]]
            codes = np.stack([encoding.code(task) for task in sources])
            mean.append(codes.mean(axis=0))
            distances = [family.distance(task, family.tasks[run["fold"]]) for task in sources]
            wrong.append(codes[int(np.argmax(distances))])
        for name, told in (("mean", mean), ("wrong", wrong)):
            self._evaluate(learner, held_out, 0, steps, plan["first_episodes"], name, told)

    def _evaluate(
        self,
        learner: Learner,
        tasks: Sequence[Sequence[int]],
        index: int,
        step: int,
        episodes: int,
        code: str = "true",
        told: Sequence[np.ndarray] | None = None,
    ) -> None:
        """Evaluates every run on its tasks, given by number, and stores a row for each."""
        plan, runs = self.plan, self.runs
        worlds = self._worlds(tasks, episodes, told)
        # start states are shared by all runs, arms and codes, and fresh at every checkpoint
        seeds = [
            seed
            for run_tasks in tasks
            for task in run_tasks
            for seed in evaluation_seeds(plan["root_seed"], task, index, episodes)
        ]
        played = learner.evaluate(worlds, seeds)
        worlds.close()
        diverged = learner.diverged()
        rows = []
        for r in self.missing:
            if diverged[r]:  # its network means nothing any more: it counts as not arrived from here on
                continue
            for k, task in enumerate(tasks[r]):
                first = (r * len(tasks[r]) + k) * episodes
                one = slice(first, first + episodes)
                rows.append(
                    {
                        "run": runs[r]["id"],
                        "checkpoint": index,
                        "steps": step,
                        "task": plan["tasks"][task]["name"],
                        "code": code,
                        **summary(played, one),
                        "diverged": False,
                    }
                )
        self.store.append(rows)


def summary(played: Episodes, one: slice) -> dict[str, Any]:
    """The statistics of some episodes, as a row holds them."""
    returns = played.returns[one]
    return {
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std(ddof=1)) if len(returns) > 1 else 0.0,
        "length_mean": float(played.lengths[one].mean()),
        "success": float(played.success[one].mean()),
        "episodes": len(returns),
    }
