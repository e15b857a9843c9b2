"""Trains the runs of a plan, cohort by cohort, and stores what it sees."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import json
import math
import platform
import random
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import mtenvs
from baselines.checkpoint import STRIPPED, DamagedError, Lessons, read_facts
from baselines.learner import DEFAULT_START, Episodes, Learner, Start
from baselines.registry import AGENTS, agent_of, find_agent, make_learner
from harness.bookmark import SAVE_SECONDS, Bookmark, Place
from harness.family_code import family_code
from harness.lock import holder, lock_path, locked
from harness.measures import damaged_runs
from harness.plan import (
    COHORT_RUNS,
    NO_FOLD,
    PlanError,
    Preset,
    checkpoints_of,
    evaluation_seeds,
    load_plan,
    model_hash,
)
from harness.schema import check_trained
from harness.store import CODES, COMPLETE, UNUSABLE, Store, owned
from harness.workers import Progress, Workers, asked_to_stop, give_back_memory, use_one_torch_thread
from mtenvs import registry
from mtenvs.conditioning import Encoding
from mtenvs.cuda_graphs import WARM_UP
from mtenvs.make import BACKENDS, check_warp, make_vector_env, world_bytes
from mtenvs.registry import TaskLike
from mtenvs.spec import did_you_mean

if TYPE_CHECKING:
    from harness.ray_workers import RayWorkers

EXECUTORS = ("local", "ray")
"""Who trains cohorts: processes of this machine, or a Ray cluster."""
BUSY_SECONDS = 2.0
"""How long is waited before a cohort is asked for again that another process trains."""
PROBE_SECONDS = 6.0
"""How long a plan's cost is probed."""

Worlds = Any
"""A ``TaskVectorEnv``, or a ``DeviceVectorEnv`` for a learner that can train on one."""


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
    backend: str = "batch",
    device: str = "cpu",
) -> Worlds:
    """Worlds laid out ``[run, task, env]``.

    Args:
        family: name of the family.
        tasks_of_runs: the tasks that each run is given.
        per_task: worlds for each of them.
        conditioning: what observations tell of the task.
        layout: how bodies of unequal size share the observation; ``None`` for the family's default.
        codes: what to tell every world instead of its task's code, ``(worlds, code_size)``.
        num_threads: threads to step on; 0 for all processors. For the backend ``"batch"``.
        backend: one of :data:`mtenvs.make.BACKENDS`.
        device: where the worlds of ``"warp"`` live.
    """
    own: dict[str, Any] = {"num_threads": num_threads} if backend == "batch" else {"device": device}
    tasks = [task for run in tasks_of_runs for task in run for _ in range(per_task)]
    return make_vector_env(
        family,
        num_envs=len(tasks),
        backend=backend,
        tasks=tasks,
        conditioning=conditioning,
        layout=layout,
        codes=codes,
        **own,
    )


def check_suite(plan: Mapping[str, Any], agent: str) -> None:
    """Makes sure that what was frozen is what would be trained.

    Args:
        plan: the plan.
        agent: its agent's name.

    Raises:
        harness.plan.PlanError: if the version of suite or agent, a published task, a body or the code that
            returns follow from differs from the plan's.
    """
    version, planned = find_agent(agent).version, plan["learner"].get("version")
    if planned is None:
        raise PlanError(
            "the plan was made before agents had versions: it can be reported, but not trained any more; "
            "make a new one in a new directory"
        )
    if version != planned:
        raise PlanError(
            f"the plan was made for version {planned!r} of agent {agent}, this is {version!r}; install "
            "that version, or make a new plan"
        )
    if wrong := check_trained(plan):
        raise PlanError(f"the plan cannot be trained: {wrong}")
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


def agent_to_run(plan: Mapping[str, Any], directory: Path, agent: str | None) -> str:
    """Whom a plan trains: one of this project's agents, or one that the user has named.

    Raises:
        harness.plan.PlanError: if the plan is of another agent than was named, or if it is of one that is
            not ours and was not named: no plan may say what code is run.
    """
    try:
        return agent_of(plan["learner"]["name"], agent, f"the plan in {directory}")
    except ValueError as error:
        raise PlanError(str(error)) from None


def run_command(
    directory: Path,
    device: str = "cpu",
    backend: str | None = None,
    executor: str = "local",
    address: str | None = None,
) -> str:
    """What to type to train what is left of a plan, where it was begun."""
    name = load_plan(directory)["learner"]["name"]
    options = {
        "agent": None if name in AGENTS else name,
        "device": None if device == "cpu" else device,
        "backend": backend,
        "executor": None if executor == "local" else executor,
        "address": address,
    }
    # it will be pasted into a shell, and the plan may be a stranger's
    given = [f" --{option} {shlex.quote(value)}" for option, value in options.items() if value is not None]
    return f"mtenvs run {shlex.quote(str(directory))}{''.join(given)}"


def check_unmixed(store: Store, stepped_by: str, backend: str | None) -> None:
    """Makes sure that a plan whose runs were made with one backend goes on with it.

    Args:
        store: of the plan.
        stepped_by: the backend that is to be used.
        backend: that was asked for; whoever names it means it.

    Raises:
        harness.plan.PlanError: otherwise.
    """
    made = {record.get("backend", "batch") for record in store.records()} - {stepped_by}
    if made and backend is None:
        raise PlanError(
            f"runs of this plan were made with backend {made.pop()!r}, here it would be {stepped_by!r}, "
            "whose physics rounds otherwise: go on as you began, with --device and --backend, or name "
            f"--backend {stepped_by} to have both in one plan"
        )


def check_executor(executor: str, address: str | None) -> None:
    """Makes sure that there is an executor, and that an address is only given where it has a meaning.

    Raises:
        ValueError: otherwise.
    """
    if executor not in EXECUTORS:
        raise ValueError(
            f"unknown executor {executor!r}{did_you_mean(executor, EXECUTORS)}; "
            f"valid: {', '.join(EXECUTORS)}"
        )
    if address is not None and executor != "ray":
        raise ValueError(f"--address {address} is that of a Ray cluster: add --executor ray")


def check_device(device: str, executor: str = "local") -> None:
    """Makes sure that a device exists, or, where others train, that it may.

    Raises:
        ValueError: otherwise.
    """
    if executor != "local":
        if device not in ("cpu", "cuda"):
            raise ValueError(f"no device {device!r}; with --executor {executor}, valid: cpu, cuda")
        return
    valid = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    if device.split(":")[0] not in valid:
        raise ValueError(f"no device {device!r} on this machine; valid: {', '.join(valid)}")


def choose_backend(
    agent: str, device: str = "cpu", backend: str | None = None, executor: str = "local"
) -> str:
    """What steps the worlds that an agent trains on.

    Args:
        agent: its name.
        device: where its networks live.
        backend: that was asked for; ``None`` for ``"warp"`` on a GPU, if the agent can, else ``"batch"``.
        executor: one of :data:`EXECUTORS`; only the local one uses a device of this machine.

    Raises:
        ValueError: for an unknown backend, one that the agent cannot train on, or a device that it cannot
            use.
        mtenvs.spec.MissingPackageError: where MuJoCo Warp is not installed.
    """
    check_device(device, executor)
    able = find_agent(agent).device_worlds
    found = backend or ("warp" if able and device.startswith("cuda") else "batch")
    if found not in BACKENDS:
        raise ValueError(
            f"unknown backend {found!r}{did_you_mean(found, BACKENDS)}; valid: {', '.join(BACKENDS)}"
        )
    if found == "warp":
        if not able:
            raise ValueError(f"agent {agent} trains on worlds of NumPy's arrays: leave out --backend warp")
        if executor == "local":
            check_warp(device)
    return found


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
    memory: float = math.nan
    """GB that training takes at least, all processes together, as read after a moment of it; NaN for
    training on a GPU."""


ROW_BYTES = 260
"""Of a stored row."""


PROBE_WORLDS = 4096
"""Worlds that are tried out on a CPU at most, but those of one run in any case. More are as fast, each, and
could exhaust the memory before anybody is told that they would."""


MOST_RUNS, MOST_STEPS = 240, 200_000_000
"""Runs that a GPU trains as one batch at most, and steps of all of them: what is stored at a time."""
SHARE = 0.7
"""Of free memory that is planned with."""
COPIES = 8
"""Of what a rollout brings, as the learner has it in inputs, tables and shuffles, in float32."""


def runs_that_fit(family: str, preset: Preset, rollout: int, device: str, longest: int) -> int:
    """How many runs of a plan a device trains as one batch, 1 at least.

    Args:
        family: its name.
        preset: what is planned.
        rollout: control steps of a world between updates.
        device: where.
        longest: control steps of the longest run.
    """
    if not device.startswith("cuda"):
        return COHORT_RUNS
    definition = registry.get_family(family)
    models = [registry.model(definition, task) for task in definition.tasks]
    encoding = Encoding(definition, preset.conditioning, preset.layout)
    free, each = world_bytes(models, definition, device)
    learned = 4 * COPIES * rollout * (encoding.slices.size + encoding.num_actions)
    # a task that is new is shown with every code; beside, the episodes of a checkpoint are played
    evaluated = (1 + len(CODES)) * preset.first_episodes + preset.episodes * len(models)
    run = preset.worlds_per_run * (each + learned) + evaluated * each
    return max(1, min(MOST_RUNS, MOST_STEPS // longest, int(SHARE * free) // run))


def estimate_cost(
    directory: Path,
    device: str = "cpu",
    processes: int = 1,
    agent: str | None = None,
    backend: str | None = None,
) -> Cost:
    """Estimates what the whole plan takes: one cohort of every shape is trained and evaluated for a moment.

    On a CPU it is as much of the cohort as has :data:`PROBE_WORLDS` worlds at most, but one run. Nothing is
    stored. Evaluation is estimated from episodes of full length, and so from above.

    Args:
        directory: of the plan.
        device: where networks live.
        processes: as of :func:`run_plan`; all of them are busy while one is timed.
        agent: as of :func:`run_plan`.
        backend: as of :func:`run_plan`.

    Raises:
        TrainingError: if the agent fails.
    """
    plan = load_plan(directory)
    agent = agent_to_run(plan, directory, agent)
    check_suite(plan, agent)
    stepped_by = choose_backend(agent, device, backend)
    by_id = {run["id"]: run for run in plan["runs"]}
    shapes: dict[str, list[list[str]]] = {}
    for cohort in plan["cohorts"]:
        first = by_id[cohort[0]]
        shapes.setdefault(json.dumps([len(first["tasks"]), first.get("config")]), []).append(cohort)
    processes = min(processes, widest(plan))
    seconds = trained = tested = testing = 0.0
    memory = []
    with Workers(processes, apart=agent not in AGENTS) as workers:
        for cohorts in shapes.values():
            largest = max(cohorts, key=len)
            threads = workers.threads(processes)
            where = Where(device, stepped_by, threads)
            on_gpu = device.startswith("cuda")
            fit = len(largest) if on_gpu else max(1, PROBE_WORLDS // plan["worlds_per_run"])
            job = (_probe, directory, largest[:fit], agent, where, PROBE_SECONDS / len(shapes))
            futures = [workers.submit(*job) for _ in range(processes)]
            try:
                speeds = [future.result() for future in futures]
            except BrokenProcessPool:
                how = workers.exit_code(futures)
                raise TrainingError(f"agent {agent} ended the process that probed it{how}") from None
            train_speed, test_speed, parameters, before, grown = np.sum(speeds, axis=0)
            memory.append(before + grown * len(largest) / len(largest[:fit]))
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
    megabytes, peak = size / 1e6, max(memory) / 1e9
    return Cost((seconds + testing) / 3600, trained / seconds, tested / testing, megabytes, peak)


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
    directory: Path, cohort: Sequence[str], agent: str, where: Where, duration: float
) -> tuple[float, float, int, float, float]:
    """What it is to train a cohort for a moment.

    Returns:
        Control steps per second, trained and evaluated; the parameters of a network; bytes of memory of
        this process before, and what came to them.

    Raises:
        TrainingError: if the agent fails, or diverges at once.
    """
    resident = _resident_bytes(where.device)
    plan = load_plan(directory)
    by_id = {run["id"]: run for run in plan["runs"]}
    runs = [by_id[i] for i in cohort]
    cohort_of = _Cohort(directory, plan, Store(directory), runs, agent, where)
    try:
        learner, worlds = cohort_of.learner(fresh=True)
        rollout = plan["learner"]["rollout"] * plan["worlds_per_run"]
        # first what is only done once
        trained = math.ceil(find_agent(agent).warm_up(plan["learner"]["config"]) / rollout) * rollout
        learner.train(worlds, trained := trained + rollout)
        began, before = time.perf_counter(), worlds.steps_taken
        # asking for what has diverged waits for the device
        while time.perf_counter() - began < duration and not learner.diverged().all():
            learner.train(worlds, trained := trained + rollout)
        train_speed = (worlds.steps_taken - before) / (time.perf_counter() - began)
    except (Exception, SystemExit) as error:
        raise TrainingError(f"agent {agent}: {type(error).__name__}: {error}") from error
    if learner.diverged().any():
        raise TrainingError(f"agent {agent} meets a number that is not finite at once")
    worlds.reset(seed=0)
    actions = np.zeros((worlds.num_envs, worlds.num_actions))
    for _ in range(WARM_UP + 1 if where.backend == "warp" else 0):
        worlds.step(actions)
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < duration / 3:
        _, rewards, *_ = worlds.step(actions)
        float(rewards[0])  # waits for the device
        steps += worlds.num_envs
    test_speed = steps / (time.perf_counter() - began)
    grown = _resident_bytes(where.device) - resident
    worlds.close()
    parameters = learner.describe()["parameters"]
    del cohort_of, learner, worlds
    give_back_memory()  # or what is kept would count as there before, and not grow with the next shape
    return train_speed, test_speed, parameters, resident, grown


def _resident_bytes(device: str) -> float:
    """Memory of this process; NaN for training on a GPU, where it is not what runs out."""
    if device.startswith("cuda"):
        return math.nan
    import psutil  # here, for a machine with a GPU that has no more than training needs

    return float(psutil.Process().memory_info().rss)


def run_plan(
    directory: Path,
    device: str = "cpu",
    progress: Progress | None = None,
    processes: int | None = None,
    agent: str | None = None,
    backend: str | None = None,
    save_every: float = SAVE_SECONDS,
    executor: str = "local",
    address: str | None = None,
    tell: Callable[[str], object] = print,
) -> None:
    """Trains whatever of a plan has no result yet, and again what has lost part of its rows.

    Results do not depend on the number of processes. A run that fails is stored as failed, with its
    traceback, and the others go on. Several processes may work on one plan: each cohort is trained by one,
    and the others wait for it or take the next. A training that was killed goes on where it was last saved,
    if its learner has all its state to give (ours has), to the same rows.

    Args:
        directory: of the plan.
        device: where networks live.
        progress: for a progress bar.
        processes: cohorts trained at a time, each in a process of its own if more than one, or if the agent
            is not of this project. A program that calls this then must be importable
            (``if __name__ == "__main__":``). ``None`` for one, or as many as a cluster has room for.
        agent: whom the plan trains; needed where it is none of ours (:data:`baselines.registry.AGENTS`).
        backend: what steps the worlds, as of :func:`choose_backend`.
        save_every: seconds after which a training is saved, between two rollouts; 0 for after every one.
        executor: one of :data:`EXECUTORS`. With ``"ray"`` each cohort is a task of a Ray cluster, which
            needs no file system in common with this machine.
        address: of the Ray cluster, such as ``"auto"``; ``None`` to have one of this machine.
        tell: what users should know meanwhile is told to this, a line at a time.

    Raises:
        harness.plan.PlanError: if there is no plan, it was edited, or made for another suite or agent.
        ValueError: for a device that is not there, a number of processes that is not positive, or a cluster
            that does not answer or cannot train this.
        mtenvs.spec.MissingPackageError: where Ray is asked for and not installed.
        TrainingError: after all else is trained, if a run has failed.
    """
    plan, store = load_plan(directory), Store(directory)
    agent = agent_to_run(plan, directory, agent)
    check_suite(plan, agent)
    check_executor(executor, address)
    stepped_by = choose_backend(agent, device, backend, executor)
    check_unmixed(store, stepped_by, backend)
    if processes is not None and processes < 1:
        raise ValueError(f"processes must be positive, got {processes}")
    if not 0.0 <= save_every < math.inf:
        raise ValueError(f"save_every must be seconds, 0 for after every rollout, got {save_every}")
    missing = _missing(plan, store)
    # cohorts are the plan's alone: the missing runs are trained beside the same neighbours again
    waiting = [cohort for cohort in plan["cohorts"] if missing & {*cohort}]
    starts = {run["id"]: run["start"] for run in plan["runs"]}
    failed: dict[str, str] = {}
    # cohorts that another process trains, and when they are asked for again
    busy: dict[str, float] = {}
    told: set[str] = set()
    futures: dict[Future[bool], list[str]] = {}
    most = widest(plan)
    trainers: Workers | RayWorkers
    if executor == "ray":
        from harness.ray_workers import RayWorkers

        trainers = RayWorkers(directory, min(processes or most, most), device, address, tell)
    else:
        # what others have written may end its process, which is not to be this one
        trainers = Workers(min(processes or 1, most), apart=agent not in AGENTS)
    with trainers as workers:
        while waiting or futures:
            unfinished = {i for cohort in (*waiting, *futures.values()) for i in cohort}
            # of neighbours that were finished before, the network is as it was
            needed = [(cohort, {starts[i] for i in cohort if i in missing}) for cohort in waiting]
            lost = [cohort for cohort, networks in needed if failed.keys() & networks]
            why = "what it or a neighbour starts from has failed"
            failed |= {i: why for cohort in lost for i in cohort if i in missing}
            waiting = [cohort for cohort in waiting if cohort not in lost]
            ready = [cohort for cohort in waiting if not unfinished & {starts[i] for i in cohort}]
            now = time.monotonic()
            free = [cohort for cohort in ready if busy.get(cohort[0], 0.0) <= now]
            free = free[: workers.count - len(futures)]
            if not ready and not futures:
                continue  # all that waited is lost
            if not free and not futures:
                time.sleep(max(0.0, min(busy[cohort[0]] for cohort in ready) - now))
                continue
            ready = free
            threads = workers.threads(len(ready) + len(futures))
            for cohort in ready:
                waiting.remove(cohort)
                where = Where(device, stepped_by, threads, save_every)
                future = workers.submit(_train_cohort, directory, cohort, agent, where, progress=progress)
                futures[future] = cohort
            for future in workers.wait(futures, progress, BUSY_SECONDS if busy else math.inf):
                cohort = futures.pop(future)
                lock, trained, why = lock_path(directory, cohort), True, ""
                try:
                    trained = future.result()
                except TrainingError as error:
                    why = str(error)
                except BrokenProcessPool:
                    why = f"agent {agent} ended the process that trained it{workers.exit_code([future])}"
                    with locked(lock) as trained:
                        if trained:  # else another process has taken it over
                            fail_runs(store, [i for i in cohort if i in missing], why)
                if not trained:  # another process trains it: perhaps it is done the next time
                    busy[cohort[0]] = time.monotonic() + BUSY_SECONDS
                    waiting.append(cohort)
                    if (who := holder(lock)) is not None and who not in told:
                        told.add(who)
                        tell(f"{who} trains a part of this plan")
                    continue
                busy.pop(cohort[0], None)
                if not why:
                    continue
                # its neighbours may have had their results before
                status = store.status()
                failed |= {i: why for i in cohort if status[i] not in COMPLETE}
    if failed:
        first = next(iter(failed))
        raise TrainingError(
            f"{len(failed)} run{'s' * (len(failed) > 1)} failed or could not begin, first {first}: "
            f"{failed[first]}. "
            f"The traceback is in {directory / 'runs' / first / 'done.json'}; "
            f"'{run_command(directory, device, backend, executor, address)}' tries again"
        )


def bookmark_of(
    directory: Path,
    store: Store,
    cohort: Sequence[str],
    missing: Iterable[str],
    where: Where | None = None,
) -> Bookmark:
    """The bookmark of a cohort, of whose runs some are missing."""
    where = Where() if where is None else where
    own = [run_id for run_id in cohort if run_id in missing]
    return Bookmark(directory, store, cohort, own, circumstances(where), where.save_every)


def widest(plan: Mapping[str, Any]) -> int:
    """How many cohorts of a plan can be trained at the same time at most."""
    runs = {run["id"]: run for run in plan["runs"]}

    def depth(run_id: str | None) -> int:
        found = 0
        while run_id is not None:
            found, run_id = found + 1, runs[run_id]["start"]
        return found

    depths = [max(map(depth, cohort)) for cohort in plan["cohorts"]]
    return max(map(depths.count, depths))


def _missing(plan: Mapping[str, Any], store: Store, run_ids: Sequence[str] | None = None) -> set[str]:
    """Runs, all or of those named, that have no result, or not all rows of it."""
    damaged = damaged_runs(store.evaluations(run_ids), store.runs(run_ids), plan)
    return {i for i, status in store.status(run_ids).items() if status not in COMPLETE or i in damaged}


def fail_runs(store: Store, run_ids: Iterable[str], error: str) -> None:
    """Stores runs as failed, with what rows they have, but for those that were finished before."""
    status = store.status()
    for run_id in (i for i in run_ids if status[i] not in COMPLETE):
        if status[run_id] != "started":
            store.begin(run_id)
        store.finish(run_id, {"status": "failed", "error": error, **circumstances()})


def _train_cohort(
    directory: Path,
    cohort: Sequence[str],
    agent: str,
    where: Where,
    progress: Progress | None = None,
) -> bool:
    """Trains a cohort, unless another process does; whether it is trained now."""
    use_one_torch_thread()
    plan, store = load_plan(directory), Store(directory)
    by_id = {run["id"]: run for run in plan["runs"]}
    with locked(lock_path(directory, cohort)) as mine:
        if not mine:
            return False
        # only now, for another process may have trained it in the meantime
        missing = _missing(plan, store, cohort)
        if not missing:
            return True
        for run_id, status in store.status(missing).items():
            if status in COMPLETE:  # it has lost rows
                store.discard(run_id)
        _Cohort(directory, plan, store, [by_id[i] for i in cohort], agent, where).train(progress)
    return True


@dataclasses.dataclass(frozen=True)
class Where:
    """Where a cohort is trained."""

    device: str = "cpu"
    """Where networks live, and the worlds of the backend ``"warp"``."""
    backend: str = "batch"
    """What steps the worlds, one of :data:`mtenvs.make.BACKENDS`."""
    threads: int = 0
    """Threads of the backend ``"batch"``; 0 for all processors."""
    save_every: float = SAVE_SECONDS
    """Seconds after which a training is saved."""


class TrainingError(RuntimeError):
    """Something failed in the midst of training."""


class _Cohort:
    """Runs of equal shape, trained together as one batch of networks on one batch of worlds."""

    def __init__(
        self,
        directory: Path,
        plan: Mapping[str, Any],
        store: Store,
        runs: Sequence[Mapping[str, Any]],
        agent: str,
        where: Where,
    ) -> None:
        self.directory, self.plan, self.store, self.runs = directory, plan, store, runs
        self.agent, self.where = agent, where
        by_id = {run["id"]: run for run in plan["runs"]}
        self._sources = [by_id[run["start"]]["tasks"] if run["start"] else [] for run in runs]
        status = store.status()
        self.missing = [r for r, run in enumerate(runs) if status[run["id"]] not in COMPLETE]
        missing = {runs[r]["id"] for r in self.missing}
        self.bookmark = bookmark_of(directory, store, [run["id"] for run in runs], missing, where)
        self._place = Place()
        # worlds to evaluate in: those on a device are not quick to make, and are used again
        self._kept: dict[Any, Worlds] = {}

    def learner(self, fresh: bool = False) -> tuple[Learner, Worlds]:
        """The learner, started as the plan says unless it shall be fresh, and the worlds to train it on."""
        plan, runs = self.plan, self.runs
        tasks = [run["tasks"] for run in runs]
        worlds = self._worlds(tasks, plan["worlds_per_run"] // len(tasks[0]), self._told())
        if self.agent not in AGENTS:
            # in a process of its own: what it draws from global streams is then the run's own, too
            random.seed(runs[0]["entropy"])
            np.random.seed(runs[0]["entropy"] % 2**32)  # noqa: NPY002
            torch.manual_seed(runs[0]["entropy"])
        learner = make_learner(
            self.agent,
            {**plan["learner"]["config"], **runs[0].get("config", {})},
            worlds,
            [run["entropy"] for run in runs],
            self.where.device,
        )
        for r, run in enumerate(runs):
            if run["start"] is not None and not fresh and self._needs_network(r):
                self._load(learner, r, run)
        return learner, worlds

    def _needs_network(self, r: int) -> bool:
        """Whether a run starts from its network: one that has its result may do without, once it is gone.

        It is trained beside the others for the shape of the batch alone, and nothing is stored of it.
        """
        return r in self.missing or self._whole(self.runs[r]["start"])

    def _whole(self, run_id: str) -> bool:
        try:
            return STRIPPED not in read_facts(checkpoint_path(self.directory, run_id))
        except (FileNotFoundError, ValueError):
            return False

    def _learns(self) -> bool:
        """Whether these runs learn a held-out task, or all of them, and are evaluated at checkpoints."""
        return self.runs[0]["phase"] != "pretrain"

    def _told(self) -> list[np.ndarray] | None:
        """Codes to tell instead of the tasks' own, of every run and task; ``None`` if none differs."""
        if all(run["told"] == "own" for run in self.runs):
            return None
        encoding = self._encoding()
        family = encoding.family
        return [
            encoding.code(family.tasks[task])
            if run["told"] == "own"
            else np.mean([encoding.code(family.tasks[k]) for k in sources], axis=0)
            for run, sources in zip(self.runs, self._sources, strict=True)
            for task in run["tasks"]
        ]

    def _lessons(self, r: int) -> Lessons:
        """What a run was taught, for those who will play its network."""
        run, told = self.runs[r], self._told()
        tasks = tuple(self.plan["tasks"][k]["name"] for k in run["tasks"])
        if told is None or run["told"] == "own":
            return Lessons(tasks)
        # one code for all of a run's tasks
        return Lessons(tasks, tuple(map(float, told[r * len(tasks)])))

    def _encoding(self) -> Encoding:
        family = registry.get_family(self.plan["family"])
        return Encoding(family, self.runs[0]["conditioning"], self.plan.get("layout"))

    def train(self, progress: Progress | None) -> None:
        """Trains, evaluates and stores.

        Raises:
            TrainingError: if something failed in the midst of it; the runs are stored as failed.
        """
        try:
            self._begin(progress)
        finally:
            for made in self._kept.values():
                made.close()
            self._kept.clear()
            if self.where.device.startswith("cuda"):
                # worlds, graphs and learner hold one another, and the next cohort wants their memory
                gc.collect()
                torch.cuda.empty_cache()
            give_back_memory()

    def _begin(self, progress: Progress | None) -> None:
        missing = [self.runs[r]["id"] for r in self.missing]
        worlds = None
        try:
            learner, worlds = self.learner()
            for run_id in missing:  # that it has failed: its bookmark may be good all the same
                self.store.discard(run_id)
            if not (goes_on := self._goes_on(learner, worlds)):
                self.bookmark.remove()
            if goes_on is False:  # it may have taken over a part of what is no state of its own
                worlds.close()
                learner, worlds = self.learner()
            if not goes_on:
                for run_id in missing:  # only now, when nothing can be refused any more
                    self.store.begin(run_id)
            self._train(learner, worlds, progress)
            self.bookmark.remove()
        except PlanError:  # what it starts from is gone: nothing of this cohort has begun
            raise
        except (Exception, SystemExit) as error:
            # what is no fault of the run, which goes on where it was saved
            if isinstance(error, OSError) and error.errno in UNUSABLE:
                raise
            self.store.check_usable()
            fail_runs(self.store, missing, traceback.format_exc())
            raise TrainingError(f"agent {self.agent}: {type(error).__name__}: {error}") from error
        finally:
            if worlds is not None:
                worlds.close()

    def _goes_on(self, learner: Learner, worlds: Worlds) -> bool | None:
        """Puts learner and worlds where they were saved.

        Returns:
            ``None`` if nothing was saved; False if what was is whole but does not fit, as a stranger's may
            be, or another version's.
        """
        if (found := self.bookmark.load()) is None:
            return None
        try:
            learner.set_state(found[0], worlds)  # type: ignore[attr-defined]  # only those are saved
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
            return False
        last = len(checkpoints_of(self.plan, self.runs[0]["arm"])) if self._learns() else 0
        rollout = self.plan["learner"]["rollout"] * worlds.num_envs
        if found[1].index > last or worlds.steps_taken >= len(self.runs) * self.runs[0]["steps"] + rollout:
            return False
        self._place = found[1]
        return True

    def _train(self, learner: Learner, worlds: Worlds, progress: Progress | None) -> None:
        plan, runs = self.plan, self.runs
        started = time.perf_counter() - self._place.seconds

        def keep() -> None:
            stop = asked_to_stop()
            if (stop or self.bookmark.due()) and hasattr(learner, "get_state"):
                seconds = time.perf_counter() - started
                self.bookmark.save(learner.get_state(), dataclasses.replace(self._place, seconds=seconds))
            if stop:
                raise KeyboardInterrupt

        def advance(steps: int) -> None:
            if progress is not None:
                progress(steps)
            keep()

        if progress is not None and worlds.steps_taken:
            progress(worlds.steps_taken)
        trained = worlds.steps_taken // len(runs)
        if not self._learns():
            trained = self._steps(learner, worlds, runs[0]["steps"], advance)
            self._hand_over(learner)
        else:
            steps = list(enumerate(checkpoints_of(plan, runs[0]["arm"])))
            for index, step in steps[self._place.index :]:
                trained = self._steps(learner, worlds, step, advance)
                episodes = plan["first_episodes"] if index == 0 else plan["episodes"]
                tasks = [run["tasks"] for run in runs]
                self._evaluate(learner, tasks, index, step, episodes, told=self._told(), again=True)
                self._place = dataclasses.replace(self._place, index=index + 1)
                keep()
            self._hand_on(learner)
        wall = time.perf_counter() - started
        diverged = learner.diverged()
        wanted = {run["start"] for run in plan["runs"]}
        for r in self.missing:
            # what others start from, and of what is learned one of every kind, to be looked at
            first = (runs[r]["seed"], runs[r]["finetune"]) == (0, 0)
            if runs[r]["phase"] == "pretrain" or runs[r]["id"] in wanted or first:
                path = owned(self.directory, checkpoint_path(self.directory, runs[r]["id"]))
                shutil.rmtree(path, ignore_errors=True)
                learner.save(r, path)
                self._lessons(r).write(path)
            record = {
                "status": "diverged" if diverged[r] else "finished",
                "steps": trained,
                "wall_seconds": round(wall / len(runs), 3),  # a run's share of its cohort
                "cohort_runs": len(runs),
                "interruptions": self._place.interruptions,
                **({"before": list(self._place.before)} if self._place.before else {}),
                "device": self.where.device,
                "backend": self.where.backend,
                **circumstances(self.where),
                **learner.describe(),
            }
            self.store.finish(runs[r]["id"], record)

    def _steps(self, learner: Learner, worlds: Worlds, until: int, progress: Progress | None) -> int:
        """Trains, and counts the steps by the worlds, whatever the learner says.

        Raises:
            ValueError: if a run that has not diverged took fewer steps than asked for, or more than it
                needed for its last rollout.
        """
        learner.train(worlds, until, progress)
        taken, rest = divmod(worlds.steps_taken, len(self.runs))
        if learner.diverged().all():
            return taken
        width = worlds.num_envs // len(self.runs)
        most = until + self.plan["learner"]["rollout"] * width - 1
        if rest or not until <= taken <= most:
            raise ValueError(
                f"it was to train until {until:,} steps per run, in rollouts of "
                f"{self.plan['learner']['rollout']} steps of {width} worlds, and has taken {taken:,}"
            )
        return taken

    def _worlds(
        self,
        tasks: Sequence[Sequence[int]],
        per_task: int,
        told: Sequence[np.ndarray] | None = None,
    ) -> Worlds:
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
            self.where.threads,
            self.where.backend,
            self.where.device,
        )

    def _load(self, learner: Learner, r: int, run: Mapping[str, Any]) -> None:
        path = checkpoint_path(self.directory, run["start"])
        start = Start(part=run["init"], **dict.fromkeys(run["switches"], True))
        try:
            # a learner that only takes over everything need not know of starts
            learner.load(r, path, *([] if start == DEFAULT_START else [start]))
        except (FileNotFoundError, DamagedError) as error:
            raise PlanError(
                f"{error}. Without that network this cannot go on: remove "
                f"{self.store.place(run['start'])} and it is trained again"
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
        encoding = self._encoding()
        family = registry.get_family(plan["family"])
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
        again: bool = False,
    ) -> None:
        """Evaluates every run on its tasks, given by number, and stores rows, of all or of those kept.

        Worlds on a device, which are not quick to make, stay to be played in ``again``.
        """
        plan, runs = self.plan, self.runs
        again = again and self.where.backend != "batch"
        key = tuple(map(tuple, tasks)), episodes
        worlds = self._kept.get(key) if again else None
        if worlds is None:
            worlds = self._worlds(tasks, episodes, told)
            if again:
                self._kept[key] = worlds
        # start states are shared by all runs, arms and codes, and fresh at every checkpoint
        seeds = [
            seed
            for run_tasks in tasks
            for task in run_tasks
            for seed in evaluation_seeds(plan["root_seed"], task, index, episodes)
        ]
        played = learner.evaluate(worlds, seeds)
        if not again:
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
def circumstances(where: Where = Where()) -> dict[str, Any]:
    """What a run's last digits depend on: processor, threads, and versions of what computes them."""
    threads = torch.get_num_threads()
    if where.device.startswith("cuda"):
        card = torch.cuda.get_device_name(where.device)
        return {"processor": card, "torch_threads": threads, "versions": _versions(where)}
    processor = platform.processor()
    with contextlib.suppress(OSError, StopIteration):  # Linux says more there than by the call
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return {"processor": processor, "torch_threads": threads, "versions": _versions(where)}


def _versions(where: Where) -> dict[str, str]:
    # of what agents are made of, where it is loaded
    used: list[str] = [name for name in ("stable_baselines3", "sb3_contrib") if name in sys.modules]
    used += ["mujoco-warp", "warp-lang"] * (where.backend == "warp")
    packages = {name: version(name) for name in ("mujoco", "numpy", "torch", *used)}
    return {"python": platform.python_version(), **packages}


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
