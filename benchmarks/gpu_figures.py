"""What ``benchmarks/gpu.py`` measures, a figure in every process.

``python -m benchmarks.gpu_figures`` imports what it needs and then waits for an order, one line of JSON on
its standard input, so that one process can import while another measures. What it finds is written whole to
a file after every part, so that a process that is killed leaves what it knew.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from torch import Tensor

import mtenvs
from baselines.ppo import PPO
from benchmarks import warp_parity
from benchmarks.gpu import NO_DEVICE
from benchmarks.record import machine as describe_machine
from benchmarks.record import spread
from mtenvs import cuda_graphs
from mtenvs.backends.mujoco_batch import topology
from mtenvs.backends.mujoco_warp import capture_scope, check_device
from mtenvs.device_env import DeviceGroup, DeviceVectorEnv
from mtenvs.spec import MissingDeviceError

PACKAGES = ("mujoco", "mujoco_warp", "warp-lang", "torch", "numpy", "gymnasium", "dm_control", "pandas")
CHUNK = 16
"""Control steps that bare physics makes from a state of the environment before it is put back to one: no
body falls far in them, so that both sides meet the same contacts."""
REPEATS = 5
LEAST_SECONDS = 0.25
"""Of a repetition."""
SETTLE = 96
"""Control steps with random actions before anything is timed, so that bodies are in all states of play."""
EVALUATION_SEEDS = 2**31


@dataclasses.dataclass(frozen=True)
class Order:
    """What a process is told to do."""

    call: str
    """Name of the function."""
    arguments: Mapping[str, Any]
    """Its arguments."""
    path: str
    """File for what it finds."""
    device: str
    """Where: cuda, cuda:N or cpu."""
    mode: str
    """How steps are launched, one of ``MODES``."""
    quick: bool
    """Tiny sizes: shows that everything runs, measures nothing."""
    began: float
    """When the whole began, in seconds since the epoch, for the lines of progress."""


MODES = {
    "unrolled": "one CUDA graph, the solver's iterations one by one; several topologies side by side",
    "loop": "one CUDA graph, of one topology, the solver's iterations a loop in it that ends early",
    "in_turn": "one CUDA graph, topologies one after another, the solver's iterations a loop in it",
    "uncaptured": "launched one by one",
}


class Figure:
    """One figure while it is taken: where, how, and what is known of it."""

    def __init__(self, order: Order) -> None:
        self.order, self.quick = order, order.quick
        self.known: dict[str, Any] = {}
        self._memory_before: int | None = None

    @property
    def device(self) -> torch.device:
        """Where everything lives."""
        return torch.device(self.order.device)

    @property
    def on_cuda(self) -> bool:
        """Whether there is something to wait for, and to capture."""
        return self.device.type == "cuda"

    def say(self, text: str) -> None:
        """Prints a line of progress."""
        print(f"[{time.time() - self.order.began:5.0f} s] {text}", flush=True)

    def know(self, **facts: Any) -> None:
        """Adds to what is known, and writes it all."""
        self.known |= facts
        part = Path(f"{self.order.path}.part")
        part.write_text(json.dumps(self.known))
        os.replace(part, self.order.path)

    def wait(self) -> None:
        """Waits until the device has done all that it was told to."""
        if self.on_cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        """How long some work takes, until the device has done it."""
        self.wait()
        started = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - started

    def begin_memory(self) -> None:
        """What is taken from here on counts."""
        if self.on_cuda:
            self.wait()
            self._memory_before = torch.cuda.mem_get_info(self.device)[0]
            torch.cuda.reset_peak_memory_stats(self.device)

    def memory(self) -> dict[str, int] | None:
        """Bytes that the card holds for us; ``None`` without a card.

        ``taken`` is all that became less free, PyTorch's and Warp's pools and the memory of graphs;
        ``torch_peak`` what PyTorch's tensors took of it at most, ``warp_peak`` Warp's arrays.
        """
        if self._memory_before is None:
            return None
        self.wait()
        free, total = torch.cuda.mem_get_info(self.device)
        pooled = wp.is_mempool_enabled(self.warp_device)
        return {
            "taken": self._memory_before - free,
            "torch_peak": torch.cuda.max_memory_allocated(self.device),
            "warp_peak": wp.get_mempool_used_mem_high(self.warp_device) if pooled else -1,
            "free": free,
            "total": total,
        }

    @property
    def warp_device(self) -> Any:
        """Warp's name of the device."""
        return wp.get_device("cuda:0" if self.order.device == "cuda" else self.order.device)

    def make(self, family: str, num_envs: int, mode: str | None = None, **options: Any) -> DeviceVectorEnv:
        """Worlds whose steps will be launched as the order says."""
        mode = mode or self.order.mode
        cuda_graphs.WARM_UP = sys.maxsize if mode == "uncaptured" else WARM_UP
        worlds = DeviceVectorEnv(family, num_envs, device=self.order.device, **options)
        if mode == "in_turn":
            worlds._streams_of_groups = []  # not public: a benchmark may look
        for group in worlds._groups:
            if mode in ("loop", "in_turn"):
                group.backend._m.opt.graph_conditional = True
        return worlds


WARM_UP = cuda_graphs.WARM_UP


# ------------------------------------------------------------------------------------------ the machine


def machine(figure: Figure) -> None:
    """The card, its driver and the versions of everything; and how fast it copies, as a measure of it."""
    import importlib.metadata

    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # unpacked without its metadata
            module = sys.modules.get(package.replace("-lang", ""))
            versions[package] = getattr(module, "__version__", None)
    figure.know(**describe_machine())
    figure.know(
        packages=versions,
        platform=platform.platform(),
        warp_driver=wp.get_cuda_driver_version(),
        warp_toolkit=wp.get_cuda_toolkit_version(),
        torch_cuda=torch.version.cuda,
        conditional_graphs=wp.is_conditional_graph_supported(),
    )
    if not figure.on_cuda:
        return
    properties = torch.cuda.get_device_properties(figure.device)
    figure.know(
        gpu=properties.name,
        gpu_memory=properties.total_memory,
        multiprocessors=properties.multi_processor_count,
        warp_mempool=wp.is_mempool_enabled(figure.warp_device),
    )
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
        figure.know(nvidia_smi=said.stdout.strip())
    source = torch.rand(1 << (20 if figure.quick else 30), device=figure.device)
    into = torch.empty_like(source)
    into.copy_(source)
    copy = min(figure.seconds(lambda: into.copy_(source)) for _ in range(REPEATS))
    figure.know(copied_bytes_per_second=2 * source.nbytes / copy)


def kernels(figure: Figure, families: Sequence[str]) -> None:
    """Compiles Warp's kernels for every topology, in a process each, for whoever comes after."""
    waiting = []
    for name in families:
        family = mtenvs.get_family(name)
        by_topology: dict[Any, list[int]] = {}
        for number, task in enumerate(family.tasks):
            key = topology(mtenvs.registry.model(family, task))
            by_topology.setdefault(key, []).append(number)
        waiting += [(name, numbers) for numbers in by_topology.values()]
    running: list[tuple[str, float, Any]] = []
    took: dict[str, Any] = {}
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            name, numbers = waiting.pop(0)
            label = f"{name} {','.join(map(str, numbers))}"
            arguments = {"family": name, "tasks": numbers}
            path = f"{figure.order.path}.{len(waiting)}"
            own = dataclasses.replace(figure.order, call="compile_one", arguments=arguments, path=path)
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.gpu_figures"], stdin=subprocess.PIPE, text=True
            )
            assert process.stdin is not None
            process.stdin.write(json.dumps(dataclasses.asdict(own)) + "\n")
            process.stdin.close()
            running.append((label, time.perf_counter(), process))
        for entry in [entry for entry in running if entry[2].poll() is not None]:
            label, started, process = entry
            running.remove(entry)
            took[label] = round(time.perf_counter() - started, 1)
            figure.know(seconds=took)
            figure.say(f"kernels of {label}: {took[label]} s" + " (failed)" * bool(process.returncode))
            if process.returncode:
                figure.know(failed=[*figure.known.get("failed", []), label])
        time.sleep(0.1)


def compile_one(figure: Figure, family: str, tasks: Sequence[int]) -> None:
    """Steps a few worlds of one topology, so that all of its kernels are compiled."""
    worlds = figure.make(family, 2 * len(tasks), mode="uncaptured", tasks=tasks)
    worlds.reset(seed=0)
    worlds.step(torch.zeros(worlds.num_envs, worlds.num_actions))
    figure.wait()


# --------------------------------------------------------------------------------------------- parity


SHARE = 0.99
"""Of differences, of which all but the largest few tell what is typical."""


def parity(figure: Figure, families: Sequence[str]) -> None:
    """How far Warp's worlds on the device are from C MuJoCo's, by task; :mod:`benchmarks.warp_parity`."""
    for name in families:
        tasks = mtenvs.tasks(name)[:2] if figure.quick else None
        found = warp_parity.measure(name, tasks, figure.device)
        figure.know(**{name: {task: dataclasses.asdict(of) for task, of in found.items()}})
        faults = {task: of.faults() for task, of in found.items() if of.faults()}
        figure.know(**{f"{name}_faults": faults})
        figure.say(f"parity of {name}: {faults or 'within its tolerances'}")


# ----------------------------------------------------------------------------------------- throughput


class Play:
    """Worlds that random actions are played in, beside the bare physics of the very same worlds."""

    def __init__(self, figure: Figure, worlds: DeviceVectorEnv) -> None:
        self.figure, self.worlds = figure, worlds
        generator = torch.Generator(worlds.device).manual_seed(0)
        shape = (CHUNK, worlds.num_envs, worlds.num_actions)
        self._bank = torch.rand(shape, generator=generator, device=worlds.device) * 2.0 - 1.0
        self._now = torch.zeros(1, dtype=torch.int64, device=worlds.device)
        self._last = self._now
        self.full = worlds.stepper(self._act, self._allocate)
        self.bare = cuda_graphs.captured(self._physics, worlds.device, capture_scope)

    def _act(self) -> Tensor:
        actions = self._bank.index_select(0, self._now).squeeze(0)
        self._now.add_(1).remainder_(CHUNK)
        return actions

    def _allocate(self) -> None:
        """Takes some memory at the end of a step, to see later where it was taken from."""
        self._last = torch.zeros_like(self._now)

    def in_pool(self) -> bool | None:
        """Whether memory of the end of a captured step lies in the graph's own pool; ``None`` if captured
        nowhere.

        Warp pauses a capture for every loop in it. PyTorch tells by the number of a capture which pool an
        allocation belongs to: were it another after a pause, what else is allocated later would lie where
        the graph writes.
        """
        if not self.figure.on_cuda:
            return None
        address = self._last.data_ptr()
        for segment in torch.cuda.memory_snapshot():
            if segment["address"] <= address < segment["address"] + segment["total_size"]:
                return tuple(segment["segment_pool_id"]) != (0, 0)
        return None

    def _physics(self) -> None:
        """A control step of nothing but ``mujoco_warp.step``, launched as the environment launches it."""
        actions = self._act()

        def step(_: int, group: DeviceGroup) -> None:
            backend = group.backend
            backend.state.ctrl.copy_(actions[group.action])
            with backend._scope():
                for _ in range(group.family.frame_skip):
                    mjw.step(backend._m, backend._d)

        self.worlds._each(step)

    def warm_up(self, settle: int) -> float:
        """Compiles and captures both sides; returns how long that took, before the bodies settle."""
        calls = WARM_UP + 2
        took = self.figure.seconds(lambda: [self.full() for _ in range(calls)])
        for _ in range(settle):
            self.full()
        self._apart(lambda: [self.bare() for _ in range(calls)])
        return took

    def _apart(self, work: Callable[[], object]) -> float:
        """How long some work takes, after which the worlds are as if it had not been done."""
        backends = [group.backend for group in self.worlds._groups]
        states = [backend.get_state() for backend in backends]
        took = self.figure.seconds(work)
        for backend, state in zip(backends, states, strict=True):
            backend.set_state(state)
        return took

    def measure(self, repeats: int, least: float) -> tuple[list[float], list[float]]:
        """Seconds of a control step of the environment and of bare physics, repetition by repetition.

        Bare physics first, then the environment, from the same states by the same actions; chunk by chunk,
        for bodies that fall and are not reset end in states that the environment never sees.
        """
        self._now.zero_()
        chunk = self.figure.seconds(lambda: [self.full() for _ in range(CHUNK)])
        chunks = min(64, max(1, math.ceil(least / chunk)))
        full, bare = [], []
        for _ in range(repeats):
            sums = [0.0, 0.0]
            for _ in range(chunks):
                sums[1] += self._apart(lambda: [self.bare() for _ in range(CHUNK)])
                sums[0] += self.figure.seconds(lambda: [self.full() for _ in range(CHUNK)])
            full.append(sums[0] / chunks / CHUNK)
            bare.append(sums[1] / chunks / CHUNK)
        return full, bare


def throughput(figure: Figure, family: str, worlds: int) -> None:
    """The whole environment beside bare ``mujoco_warp.step``, at so many worlds, by random actions."""
    figure.begin_memory()
    started = time.perf_counter()
    envs = figure.make(family, worlds)
    _stagger(envs)
    figure.know(build_seconds=time.perf_counter() - started, memory_worlds=figure.memory())
    play = Play(figure, envs)
    figure.know(first_steps_seconds=play.warm_up(4 if figure.quick else SETTLE))
    full, bare = play.measure(*((2, 0.0) if figure.quick else (REPEATS, LEAST_SECONDS)))
    skip = envs._groups[0].family.frame_skip
    figure.know(
        worlds=worlds,
        topologies=len(envs._groups),
        substeps=skip,
        mode=figure.order.mode,
        steps_per_second=spread([worlds / s for s in full]),
        physics_steps_per_second=spread([worlds * skip / s for s in full]),
        bare_physics_steps_per_second=spread([worlds * skip / s for s in bare]),
        ratio=spread([b / f for b, f in zip(bare, full, strict=True)]),
        milliseconds=spread([1e3 * s for s in full]),
        bare_milliseconds=spread([1e3 * s for s in bare]),
        memory=figure.memory(),
        warnings=_checked(envs),
    )
    figure.say(
        f"{family}, {worlds:,} worlds: {worlds / np.median(full):,.0f} environment steps/s, "
        f"{worlds * skip / np.median(bare):,.0f} bare physics steps/s, "
        f"ratio {figure.known['ratio']['median']:.2f}"
    )


def _stagger(envs: DeviceVectorEnv) -> None:
    """Starts episodes that do not all end at once."""
    elapsed = np.random.default_rng(1).integers(envs.episode_limits)
    envs.reset(seed=0, options={"elapsed_steps": elapsed})


def _checked(envs: DeviceVectorEnv) -> list[str]:
    """What the worlds have to say of the steps since they were last asked."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        envs.check()
    return [str(warning.message) for warning in caught]


# -------------------------------------------------------------------------------------------- capture


EQUAL = 1e-3
"""By how much observations of captured and uncaptured steps may differ at first, in all but a hundredth of
the worlds: the order of additions on a card is not fixed, and a contact magnifies what that changes."""


def capture(figure: Figure, family: str, worlds: int, mode: str) -> None:
    """A captured step beside the same one launched one by one: that both do the same, and how fast."""
    figure.know(mode=mode, worlds=worlds)
    steps, times = 2 * CHUNK, {}
    seen: dict[str, list[Tensor]] = {}
    for one in ("uncaptured", mode):
        envs = figure.make(family, worlds, mode=one)
        envs.reset(seed=0)
        play = Play(figure, envs)
        seen[one] = []
        for _ in range(steps):
            play.full()
            seen[one].append(envs.observations.clone())
        repeats = 1 if figure.quick else 3
        times[one] = [
            figure.seconds(lambda p=play: [p.full() for _ in range(CHUNK)]) for _ in range(repeats)
        ]
        if one == mode:
            figure.know(in_pool=play.in_pool())
        milliseconds = {key: spread([1e3 * t / CHUNK for t in value]) for key, value in times.items()}
        figure.know(milliseconds=milliseconds)
        figure.say(f"{family}, {worlds:,} worlds, {one}: {milliseconds[one]['median']:.3f} ms a step")
    worst = [(a - b).abs().amax(dim=1).cpu().numpy() for a, b in zip(*seen.values(), strict=True)]
    differences = [{"typical": float(np.quantile(w, SHARE)), "largest": float(w.max())} for w in worst]
    # captured from the third on
    early = max(difference["typical"] for difference in differences[: WARM_UP + 4])
    figure.know(differences=differences, early=early, equal=early <= EQUAL)
    if figure.known["in_pool"] is False:
        raise AssertionError("memory of a captured step lies outside of its graph's pool")
    if not early <= EQUAL:
        raise AssertionError(f"captured steps differ from uncaptured ones by {early:g}: see 'differences'")


# ------------------------------------------------------------------------------------------- training


def training(figure: Figure, family: str, runs: Sequence[int], width: int, episodes: int = 0) -> None:
    """PPO end to end, for so many runs of so many worlds each.

    Args:
        figure: the figure.
        family: its name.
        runs: numbers of runs, each measured; in turn, repetition by repetition.
        width: worlds of a run, dealt to all tasks but one, as in pretraining for a held-out one.
        episodes: of an evaluation, to be timed as well; 0 for none.
    """
    count = len(mtenvs.get_family(family).tasks)
    learners: dict[int, tuple[PPO, DeviceVectorEnv]] = {}
    figure.know(width=width, mode=figure.order.mode, by_runs={})
    of: dict[int, dict[str, Any]] = {}
    for number in runs:
        figure.begin_memory()
        started = time.perf_counter()
        sources = [[task for task in range(count) if task != run % count] for run in range(number)]
        tasks = [own[i % len(own)] for own in sources for i in range(width)]
        envs = figure.make(family, number * width, tasks=tasks)
        learner = PPO(envs, list(range(number)), device=str(envs.device))
        of[number] = {"build_seconds": time.perf_counter() - started}
        warm = 1 if figure.quick else 2
        per_rollout = learner.config.num_steps * width
        of[number]["first_rollouts_seconds"] = figure.seconds(
            lambda le=learner, e=envs, until=warm * per_rollout: le.train(e, until)
        )
        of[number] |= {"memory": figure.memory(), "rollout_seconds": [], "parameters": learner.describe()}
        learners[number] = learner, envs
        figure.know(by_runs=of)
        took = of[number]["first_rollouts_seconds"]
        figure.say(f"{family}, {number} x {width} worlds: first rollouts {took:.1f} s")
    for _ in range(2 if figure.quick else REPEATS):
        for number, (learner, envs) in learners.items():
            of[number]["rollout_seconds"].append(_rollout_seconds(figure, learner, envs, width))
        figure.know(by_runs=of)
    for number, (learner, _) in learners.items():
        per_rollout = learner.config.num_steps * width * number
        seconds = of[number]["rollout_seconds"]
        of[number]["steps_per_second"] = spread([per_rollout / s for s in seconds])
        of[number]["diverged_runs"] = int(learner.diverged().sum())
        figure.know(by_runs=of)
        figure.say(f"{number} x {width} worlds: {per_rollout / np.median(seconds):,.0f} steps/s in all")
    if len(runs) > 1:
        first, last = runs[0], runs[-1]
        pairs = zip(of[first]["rollout_seconds"], of[last]["rollout_seconds"], strict=True)
        figure.know(times_as_long=spread([b / a for a, b in pairs]))
    if episodes:
        number = runs[-1]
        figure.know(evaluation=_evaluation(figure, family, learners[number][0], number, episodes))
    for number, (learner, envs) in learners.items():
        of[number]["share"] = _shares(figure, learner, envs, width)
        of[number]["warnings"] = _checked(envs)
        figure.know(by_runs=of)
        parts = ", ".join(f"{key} {value:.0%}" for key, value in of[number]["share"]["of_time"].items())
        figure.say(f"{number} x {width} worlds: {parts}")


def _rollout_seconds(figure: Figure, learner: PPO, envs: DeviceVectorEnv, width: int) -> float:
    """Seconds of a rollout and its update."""
    one = learner.config.num_steps * width
    first = figure.seconds(lambda: learner.train(envs, learner.steps + one))
    if figure.quick:
        return first
    more = min(16, max(1, math.ceil(LEAST_SECONDS / first)))
    return figure.seconds(lambda: learner.train(envs, learner.steps + more * one)) / more


def _evaluation(figure: Figure, family: str, learner: PPO, number: int, episodes: int) -> dict[str, Any]:
    """How long an evaluation of all runs takes: to start its episodes, and for each of its steps."""
    count = len(mtenvs.get_family(family).tasks)
    tasks = [run % count for run in range(number) for _ in range(episodes)]
    envs = figure.make(family, number * episodes, tasks=tasks)
    seeds = list(range(EVALUATION_SEEDS, EVALUATION_SEEDS + envs.num_envs))
    learner.evaluate(envs, seeds)  # captures
    start = figure.seconds(lambda: envs.reset(seed=seeds))
    before = envs.steps_taken
    whole = figure.seconds(lambda: learner.evaluate(envs, seeds))
    steps = (envs.steps_taken - before) // envs.num_envs
    return {
        "worlds": envs.num_envs,
        "start_seconds": start,
        "steps": steps,
        "step_seconds": max(whole - start, 0.0) / steps,
    }


def _shares(figure: Figure, learner: PPO, envs: DeviceVectorEnv, width: int) -> dict[str, Any]:
    """Where the time of a rollout and its update goes; waited for after every part, so a little slower.

    ``physics``: bare ``mujoco_warp.step``; ``environment``: what the step of the worlds takes beyond;
    ``policy``: what acting takes beyond that; ``estimate``: noise, values, advantages and normalisers;
    ``update``: the minibatch steps.
    """
    spent: dict[str, float] = {}

    def clocked(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            results: list[Any] = []
            took = figure.seconds(lambda: results.append(work(*arguments)))
            spent[name] = spent.get(name, 0.0) + took
            return results[0]

        return call

    rollouts, steps = learner._rollouts, learner.config.num_steps
    assert rollouts is not None
    number = 1 if figure.quick else 3
    for owner, name in ((rollouts, "collect"), (learner, "_rollout"), (learner, "_update")):
        setattr(owner, name, clocked(name, getattr(owner, name)))
    whole = figure.seconds(lambda: learner.train(envs, learner.steps + number * steps * width)) / number
    for owner, name in ((rollouts, "collect"), (learner, "_rollout"), (learner, "_update")):
        delattr(owner, name)
    each = {name: seconds / number for name, seconds in spent.items()}
    play = Play(figure, envs)
    play.warm_up(0)
    full, bare = play.measure(*((1, 0.0) if figure.quick else (3, 0.1)))
    physics, stepping = (steps * float(np.median(values)) for values in (bare, full))
    parts = {
        "physics": physics,
        "environment": stepping - physics,
        "policy": each["collect"] - stepping,
        "estimate": each["_rollout"] - each["collect"],
        "update": each["_update"],
    }
    return {"seconds": parts, "of_time": {name: seconds / whole for name, seconds in parts.items()}}


def plan(figure: Figure, family: str) -> None:
    """The standard leave-one-out, in as few cohorts as a card allows that holds all runs at once."""
    # here, for it needs more packages than all the rest
    from baselines.registry import describe_learner
    from harness.plan import PRESETS, make_plan

    preset = dataclasses.replace(PRESETS["standard"], cohort_runs=10**6)
    learner = dataclasses.asdict(describe_learner("ppo", family, blind=True))
    whole = make_plan(family, preset, learner, "standard")
    by_id = {run["id"]: run for run in whole["runs"]}
    per_rollout = whole["learner"]["rollout"] * whole["worlds_per_run"]
    cohorts = []
    for ids in whole["cohorts"]:
        own = [by_id[i] for i in ids]
        learning = own[0]["phase"] == "learn"
        cohorts.append(
            {
                "phase": own[0]["phase"],
                "runs": len(own),
                "rollouts": math.ceil(max(run["steps"] for run in own) / per_rollout),
                # a pretraining is evaluated once, at its end
                "evaluations": len(whole["checkpoints"]) if learning else 1,
            }
        )
    figure.know(
        family=family,
        steps=sum(run["steps"] for run in whole["runs"]),
        runs=len(whole["runs"]),
        worlds_per_run=whole["worlds_per_run"],
        episodes=whole["episodes"],
        first_episodes=whole["first_episodes"],
        episode_steps=mtenvs.get_family(family).episode_steps,
        cohorts=cohorts,
    )


# --------------------------------------------------------------------------------------------- process


CALLS: dict[str, Callable[..., None]] = {
    call.__name__: call
    for call in (machine, kernels, compile_one, parity, throughput, capture, training, plan)
}


def main() -> None:
    """Waits for an order and carries it out; what went wrong is left where the figure is."""
    faulthandler.enable()
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1, all_threads=True)  # asked for before a process is killed
    line = sys.stdin.readline()
    if not line.strip():  # it is not needed any more
        return
    order = Order(**json.loads(line))
    figure = Figure(order)
    started, status = time.perf_counter(), 0
    try:
        check_device(order.device)
        CALLS[order.call](figure, **order.arguments)
    except BaseException as error:
        figure.know(traceback=traceback.format_exc())
        traceback.print_exc()
        status = NO_DEVICE if isinstance(error, MissingDeviceError) else 1
    figure.know(own_seconds=time.perf_counter() - started)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # libraries take seconds to take leave of a card, or fail to


if __name__ == "__main__":
    main()
