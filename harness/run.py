"""Trains the runs of a plan, cohort by cohort, and stores what it sees."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import multiprocessing
import os
import platform
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mtenvs
from baselines.learner import Episodes, Learner
from baselines.registry import make_learner
from harness.family_code import family_code
from harness.measures import damaged_runs
from harness.plan import NO_FOLD, PlanError, checkpoints_of, evaluation_seeds, load_plan, model_hash
from harness.store import CODES, COMPLETE, Store
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
    num_threads: int = 0,
) -> TaskVectorEnv:
    """Worlds laid out ``[run, task, env]``.

    Args:
        family: name of the family.
        tasks_of_runs: the tasks that each run is given.
        per_task: worlds for each of them.
        conditioning: what observations tell of the task.
        layout: how bodies of unequal size share the observation; ``None`` for the family's default.
        codes: what to tell every world instead of its task's code, ``(worlds, code_size)``.
        num_threads: threads to step on; 0 for all processors.
    """
    tasks = [task for run in tasks_of_runs for task in run for _ in range(per_task)]
    return TaskVectorEnv(
        family,
        num_envs=len(tasks),
        tasks=tasks,
        conditioning=conditioning,
        layout=layout,
        codes=codes,
        num_threads=num_threads,
    )


def check_suite(plan: Mapping[str, Any]) -> None:
    """Makes sure that what was frozen is what would be trained.

    Raises:
        harness.plan.PlanError: if the suite's version, a published task, a body or the code that returns
            follow from differs from the plan's.
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
    hashes = plan["leaks"]["models"]
    bodies = [t.name for t in family.tasks if t.name in hashes and model_hash(family, t) != hashes[t.name]]
    if bodies or family_code(family) != plan["family_code"]:
        what = f"bodies ({', '.join(bodies)})" if bodies else "code"
        raise PlanError(
            f"the {what} of {family.name} have changed since the plan was frozen, or MuJoCo has; restore "
            "them, or make a new plan in a new directory"
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
    plan = load_plan(directory)
    missing = _missing(plan, Store(directory))
    steps = {run["id"]: run["steps"] for run in plan["runs"]}
    # a cohort is trained as a whole, also where only some of its runs are missing
    return sum(steps[i] for cohort in plan["cohorts"] if missing & {*cohort} for i in cohort)


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


def estimate_cost(directory: Path, device: str = "cpu", processes: int = 1) -> Cost:
    """Estimates what the whole plan takes: one cohort of every shape is trained and evaluated for a moment.

    Nothing is stored. Evaluation is estimated from episodes of full length, and so from above.

    Args:
        directory: of the plan.
        device: where networks live.
        processes: as of :func:`run_plan`; all of them are busy while one is timed.
    """
    plan = load_plan(directory)
    check_suite(plan)
    by_id = {run["id"]: run for run in plan["runs"]}
    shapes: dict[str, list[list[str]]] = {}
    for cohort in plan["cohorts"]:
        first = by_id[cohort[0]]
        shapes.setdefault(json.dumps([len(first["tasks"]), first.get("config")]), []).append(cohort)
    processes = min(processes, widest(plan))
    seconds = trained = tested = testing = 0.0
    with _Workers(processes) as workers:
        for cohorts in shapes.values():
            largest = max(cohorts, key=len)
            threads = workers.threads(processes)
            job = (_probe, directory, largest, device, threads, PROBE_SECONDS / len(shapes))
            speeds = [future.result() for future in [workers.submit(*job) for _ in range(processes)]]
            train_speed, test_speed, parameters = np.sum(speeds, axis=0)
            runs = [by_id[i] for cohort in cohorts for i in cohort]
            steps = sum(run["steps"] for run in runs)
            wanted = sum(_evaluated_episodes(plan, run) for run in runs)
            wanted *= registry.get_family(plan["family"]).episode_steps
            trained, seconds = trained + steps, seconds + steps / train_speed
            tested, testing = tested + wanted, testing + wanted / test_speed
    rows, starts = 0, {run["start"] for run in plan["runs"]}
    for run in plan["runs"]:
        points = 1 if run["phase"] == "pretrain" else len(checkpoints_of(plan, run["arm"]))
        rows += points * len(run["tasks"]) + 3 * (run["phase"] == "pretrain")
    saved = sum(
        run["phase"] == "pretrain" or run["id"] in starts or (run["seed"], run["finetune"]) == (0, 0)
        for run in plan["runs"]
    )
    checkpoint = 3 * 4 * parameters / processes  # weights and Adam's two moments, float32
    size = rows * ROW_BYTES + saved * checkpoint
    return Cost((seconds + testing) / 3600, trained / seconds, tested / testing, size / 1e6)


def _evaluated_episodes(plan: Mapping[str, Any], run: Mapping[str, Any]) -> int:
    """Episodes that a run is evaluated for, in all."""
    if run["phase"] == "learn":
        points = len(checkpoints_of(plan, run["arm"]))
        shown = {other["fold"] for other in plan["runs"] if other["start"] == run["id"]}
        handed_on = len(shown) * len(CODES) * plan["first_episodes"]
        return len(run["tasks"]) * (plan["first_episodes"] + (points - 1) * plan["episodes"]) + handed_on
    codes = 0 if not _holds_out(run) else 1 if run["conditioning"] == "none" else len(CODES)
    return len(run["tasks"]) * plan["episodes"] + codes * plan["first_episodes"]


def _holds_out(run: Mapping[str, Any]) -> bool:
    """Whether a pretraining has a task to be shown at its end that it was not trained on."""
    return run["fold"] != NO_FOLD and run["fold"] not in run["tasks"]


def _probe(
    directory: Path, cohort: Sequence[str], device: str, threads: int, duration: float
) -> tuple[float, float, int]:
    """Control steps per second of a cohort, trained and evaluated, and the parameters of a network."""
    plan = load_plan(directory)
    by_id = {run["id"]: run for run in plan["runs"]}
    runs = [by_id[i] for i in cohort]
    learner, worlds = _Cohort(directory, plan, Store(directory), runs, device, threads).learner(fresh=True)
    rollout = plan["learner"]["rollout"] * plan["worlds_per_run"]
    learner.train(worlds, rollout)  # what is only done once
    began, trained = time.perf_counter(), rollout
    while time.perf_counter() - began < duration:
        trained = learner.train(worlds, trained + rollout)
    train_speed = (trained - rollout) * len(cohort) / (time.perf_counter() - began)
    worlds.reset(seed=0)
    actions = np.zeros((worlds.num_envs, worlds.num_actions))
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < duration / 3:
        worlds.step(actions)
        steps += worlds.num_envs
    test_speed = steps / (time.perf_counter() - began)
    worlds.close()
    return train_speed, test_speed, learner.describe()["parameters"]


def run_plan(
    directory: Path, device: str = "cpu", progress: Progress | None = None, processes: int = 1
) -> None:
    """Trains whatever of a plan has no result yet, and again what has lost part of its rows.

    Results do not depend on the number of processes. A run that fails is stored as failed, with its
    traceback, and the others go on.

    Args:
        directory: of the plan.
        device: where networks live.
        progress: for a progress bar.
        processes: cohorts trained at a time, each in a process of its own if more than one. A program that
            asks for several must be importable (``if __name__ == "__main__":``), and its own learners are
            not known to them.

    Raises:
        harness.plan.PlanError: if there is no plan, it was edited, or it was made for another suite.
        ValueError: for a device that is not there, or a number of processes that is not positive.
        TrainingError: after all else is trained, if a run has failed.
    """
    plan, store = load_plan(directory), Store(directory)
    check_suite(plan)
    check_device(device)
    if processes < 1:
        raise ValueError(f"processes must be positive, got {processes}")
    missing = _missing(plan, store)
    for run_id in missing:
        store.discard(run_id)
    # cohorts are the plan's alone: the missing runs are trained beside the same neighbours again
    waiting = [cohort for cohort in plan["cohorts"] if missing & {*cohort}]
    starts = {run["id"]: run["start"] for run in plan["runs"]}
    failed: dict[str, str] = {}
    futures: dict[Future[None], list[str]] = {}
    with _Workers(min(processes, widest(plan))) as workers:
        while waiting or futures:
            unfinished = {i for cohort in (*waiting, *futures.values()) for i in cohort}
            lost = [cohort for cohort in waiting if failed.keys() & {starts[i] for i in cohort}]
            failed |= {i: "what it starts from has failed" for cohort in lost for i in cohort}
            waiting = [cohort for cohort in waiting if cohort not in lost]
            ready = [cohort for cohort in waiting if not unfinished & {starts[i] for i in cohort}]
            ready = ready[: workers.count - len(futures)]
            if not ready and not futures:
                continue  # all that waited is lost
            threads = workers.threads(len(ready) + len(futures))
            for cohort in ready:
                waiting.remove(cohort)
                job = (_train_cohort, directory, cohort, device, threads)
                futures[workers.submit(*job, progress=progress)] = cohort
            for future in workers.wait(futures, progress):
                cohort = futures.pop(future)
                try:
                    future.result()
                except TrainingError as error:
                    failed |= dict.fromkeys(cohort, str(error))
    if failed:
        first = next(iter(failed))
        raise TrainingError(
            f"{len(failed)} runs failed or could not begin, the first of them {first}: {failed[first]}. "
            f"The traceback is in {directory / 'runs' / first / 'done.json'}; "
            f"'mtenvs run {directory}' tries again"
        )


def widest(plan: Mapping[str, Any]) -> int:
    """How many cohorts of a plan can be trained at the same time at most."""
    runs = {run["id"]: run for run in plan["runs"]}

    def depth(run_id: str | None) -> int:
        return 0 if run_id is None else 1 + depth(runs[run_id]["start"])

    depths = [max(map(depth, cohort)) for cohort in plan["cohorts"]]
    return max(map(depths.count, depths))


def _missing(plan: Mapping[str, Any], store: Store) -> set[str]:
    """Runs that have no result, or not all rows of it."""
    damaged = damaged_runs(store.evaluations(), store.runs(), plan)
    return {i for i, status in store.status().items() if status not in COMPLETE or i in damaged}


def _train_cohort(
    directory: Path, cohort: Sequence[str], device: str, threads: int, progress: Progress | None = None
) -> None:
    use_one_torch_thread()
    plan, store = load_plan(directory), Store(directory)
    by_id = {run["id"]: run for run in plan["runs"]}
    _Cohort(directory, plan, store, [by_id[i] for i in cohort], device, threads).train(progress)


class TrainingError(RuntimeError):
    """Something failed in the midst of training."""


class _Workers:
    """Calls functions, several at a time in processes of their own, or one at a time in this one.

    Args:
        count: how many at a time.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None
        self._steps: Any = None

    def __enter__(self) -> _Workers:
        use_one_torch_thread()
        if self.count > 1:
            # not forked: a copy of this process would hold locks of threads that it does not have
            context = multiprocessing.get_context("spawn")
            self._steps = context.SimpleQueue()
            self._pool = ProcessPoolExecutor(
                self.count, context, initializer=_set_steps, initargs=(self._steps,)
            )
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if self._pool is not None:
            if kind is not None:  # what has begun is of no use any more
                for process in list(self._pool._processes.values()):
                    process.terminate()
            self._pool.shutdown(cancel_futures=True)

    @staticmethod
    def threads(running: int) -> int:
        """Threads for the physics of each of so many calls; 0 for all processors."""
        return 0 if running == 1 else max(1, (os.cpu_count() or 1) // running)

    def submit(
        self, function: Callable[..., Any], *args: Any, progress: Progress | None = None
    ) -> Future[Any]:
        """Begins a call, or, if it is one at a time, ends it too."""
        if self._pool is not None:
            return self._pool.submit(function, *args, *([_send_steps] if progress else []))
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, *([progress] if progress else [])))
        except Exception as error:
            future.set_exception(error)
        return future

    def wait(self, futures: Iterable[Future[Any]], progress: Progress | None) -> set[Future[Any]]:
        """Waits for any of the calls, handing their progress on."""
        while True:
            done = wait(futures, timeout=0.2, return_when=FIRST_COMPLETED).done
            while self._steps is not None and not self._steps.empty():
                steps = self._steps.get()
                if progress is not None:
                    progress(steps)
            if done:
                return done


_steps: Any = None
"""In a worker process: where steps trained are reported."""


def _set_steps(queue: Any) -> None:
    global _steps
    _steps = queue
    # one that outlived a killed command would write beside those that go on with its plan
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _send_steps(steps: int) -> None:
    _steps.put(steps)


class _Cohort:
    """Runs of equal shape, trained together as one batch of networks on one batch of worlds."""

    def __init__(
        self,
        directory: Path,
        plan: Mapping[str, Any],
        store: Store,
        runs: Sequence[Mapping[str, Any]],
        device: str,
        threads: int,
    ) -> None:
        self.directory, self.plan, self.store, self.runs = directory, plan, store, runs
        self.threads = threads
        status = store.status()
        self.missing = [r for r, run in enumerate(runs) if status[run["id"]] not in COMPLETE]
        self.device = device

    def learner(self, fresh: bool = False) -> tuple[Learner, TaskVectorEnv]:
        """The learner, started as the plan says unless it shall be fresh, and the worlds to train it on."""
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
            if run["start"] is not None and not fresh:
                self._load(learner, r, run["start"], run["init"])
        return learner, worlds

    def train(self, progress: Progress | None) -> None:
        """Trains, evaluates and stores.

        Raises:
            TrainingError: if something failed in the midst of it; the runs are stored as failed.
        """
        learner, worlds = self.learner()
        for r in self.missing:  # only now, when nothing can be refused any more
            self.store.begin(self.runs[r]["id"])
        try:
            self._train(learner, worlds, progress)
        except Exception as error:
            for r in self.missing:
                record = {"status": "failed", "error": traceback.format_exc(), **circumstances()}
                self.store.finish(self.runs[r]["id"], record)
            raise TrainingError(f"{type(error).__name__}: {error}") from error
        finally:
            worlds.close()

    def _train(self, learner: Learner, worlds: TaskVectorEnv, progress: Progress | None) -> None:
        plan, runs, started = self.plan, self.runs, time.perf_counter()
        trained = 0
        if runs[0]["phase"] == "pretrain":
            trained = learner.train(worlds, runs[0]["steps"], progress)
            self._hand_over(learner)
        else:
            for index, step in enumerate(checkpoints_of(plan, runs[0]["arm"])):
                trained = learner.train(worlds, step, progress)
                episodes = plan["first_episodes"] if index == 0 else plan["episodes"]
                self._evaluate(learner, [run["tasks"] for run in runs], index, step, episodes)
            self._hand_on(learner)
        wall = time.perf_counter() - started
        diverged = learner.diverged()
        wanted = {run["start"] for run in plan["runs"]}
        for r in self.missing:
            # what others start from, and of what is learned one of every kind, to be looked at
            first = (runs[r]["seed"], runs[r]["finetune"]) == (0, 0)
            if runs[r]["phase"] == "pretrain" or runs[r]["id"] in wanted or first:
                path = checkpoint_path(self.directory, runs[r]["id"])
                shutil.rmtree(path, ignore_errors=True)
                learner.save(r, path)
            record = {
                "status": "diverged" if diverged[r] else "finished",
                "steps": trained,
                "wall_seconds": round(wall / len(runs), 3),  # a run's share of its cohort
                "cohort_runs": len(runs),
                "device": self.device,
                "torch_threads": torch.get_num_threads(),
                **circumstances(),
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
            self.threads,
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
        if not all(map(_holds_out, runs)):  # they are alike in a cohort; sources of a matrix hold none out
            return
        self._show_held_out(learner, [run["fold"] for run in runs], 0, steps)

    def _hand_on(self, learner: Learner) -> None:
        """The same for networks that learned their task from scratch and are another's single source."""
        starts = {(run["start"], run["fold"]) for run in self.plan["runs"] if run["phase"] == "learn"}
        folds = [sorted(fold for start, fold in starts if start == run["id"]) for run in self.runs]
        index = len(checkpoints_of(self.plan, self.runs[0]["arm"])) - 1
        for turn in range(max(map(len, folds))):
            # a run that has no such fold any more is shown its own task, and nothing is stored of it
            shown = [own[turn] if turn < len(own) else NO_FOLD for own in folds]
            self._show_held_out(learner, shown, index, self.runs[0]["steps"])

    def _show_held_out(self, learner: Learner, folds: Sequence[int], index: int, steps: int) -> None:
        """Evaluates every run on a task that it has not seen, told its true code, the mean and a wrong one.

        Args:
            learner: of the cohort.
            folds: number of the task for each run; nothing is stored where it is ``NO_FOLD``.
            index: number of the checkpoint that the rows are given.
            steps: that were trained.
        """
        plan, runs = self.plan, self.runs
        tasks = [
            [run["tasks"][0] if fold == NO_FOLD else fold] for run, fold in zip(runs, folds, strict=True)
        ]
        kept = [fold != NO_FOLD for fold in folds]
        self._evaluate(learner, tasks, index, steps, plan["first_episodes"], kept=kept)
        if runs[0]["conditioning"] == "none":
            return  # it is told nothing, so there is no other thing to tell it
        family = registry.get_family(plan["family"])
        encoding = Encoding(family, runs[0]["conditioning"], plan.get("layout"))
        mean, wrong = [], []
        for run, (shown,) in zip(runs, tasks, strict=True):
            sources = [family.tasks[k] for k in run["tasks"]]
            codes = np.stack([encoding.code(task) for task in sources])
            mean.append(codes.mean(axis=0))
            distances = [family.distance(task, family.tasks[shown]) for task in sources]
            wrong.append(codes[int(np.argmax(distances))])
        for name, told in (("mean", mean), ("wrong", wrong)):
            self._evaluate(learner, tasks, index, steps, plan["first_episodes"], name, told, kept)

    def _evaluate(
        self,
        learner: Learner,
        tasks: Sequence[Sequence[int]],
        index: int,
        step: int,
        episodes: int,
        code: str = "true",
        told: Sequence[np.ndarray] | None = None,
        kept: Sequence[bool] | None = None,
    ) -> None:
        """Evaluates every run on its tasks, given by number, and stores rows, of all or of those kept."""
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
            if kept is not None and not kept[r]:
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
                        # its network means nothing any more: it counts as not arrived from here on
                        **(dict.fromkeys(STATISTICS, math.nan) if diverged[r] else {}),
                        "diverged": bool(diverged[r]),
                    }
                )
        self.store.append(rows)


@functools.cache
def circumstances() -> dict[str, Any]:
    """What a run's last digits depend on: versions of what computes them, and the processor."""
    processor = platform.processor()
    with contextlib.suppress(OSError, StopIteration):  # Linux says more there than by the call
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    packages = {name: version(name) for name in ("mujoco", "numpy", "torch")}
    return {"processor": processor, "versions": {"python": platform.python_version(), **packages}}


STATISTICS = ("return_mean", "return_std", "length_mean", "success")


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
