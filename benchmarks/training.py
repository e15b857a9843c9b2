"""Speed of training: our stacked PPO against Stable-Baselines3's on one biped, and ten runs against one.

Network, rollout, batch, epochs and every other hyperparameter are equal; ``benchmarks/curves.py``
compares the learning curves. Learners live in processes of their own, are built and warmed
up before the clock starts, and train in turn.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection

from baselines.ppo import PPOConfig
from benchmarks.record import Store, compare, interleave, spread

TASK, WORLDS, RUNS = 0, 64, 10
CONDITIONING = "descriptor"  # one task, so it tells nothing; but it is the default that people train with
PROBED = (("dummy", 8), ("dummy", 64), ("subproc", os.cpu_count() or 2), ("subproc", 8))


@dataclasses.dataclass(frozen=True)
class Ours:
    """Our stacked PPO."""

    runs: int
    """Runs, each of its own worlds."""
    torch_threads: int
    """Of PyTorch."""
    tasks: tuple[int, ...] = (TASK,) * WORLDS
    """Of every world of a run."""
    conditioning: str = CONDITIONING
    """What the policy is told."""
    config: PPOConfig = dataclasses.field(default_factory=PPOConfig)
    """Hyperparameters."""


@dataclasses.dataclass(frozen=True)
class Theirs:
    """SB3's PPO."""

    kind: str
    """``dummy``, ``subproc`` or ``native``."""
    num_envs: int
    """Worlds."""
    torch_threads: int
    """Of PyTorch."""
    seed: int = 1
    """Of the run."""


def _work(what: Ours | Theirs, pipe: Connection) -> None:
    """A process: makes the learner, then trains as many steps per run as it is told and says how long."""
    import torch

    torch.set_num_threads(what.torch_threads)
    if isinstance(what, Ours):
        import gymnasium as gym

        import mtenvs
        from baselines.ppo import PPO

        worlds = gym.make_vec(
            "mt/Biped-v0",
            num_envs=len(what.tasks) * what.runs,
            tasks=what.tasks * what.runs,
            conditioning=what.conditioning,
        ).unwrapped
        learner = PPO(worlds, range(what.runs), what.config)

        def train(steps: int) -> int:
            before = learner.steps
            learner.train(worlds, before + steps)
            return what.runs * (learner.steps - before)
    else:
        import mtenvs  # noqa: F401
        from benchmarks.sb3 import make_ppo, make_vec

        vec = make_vec(what.kind, what.num_envs, TASK, CONDITIONING, what.seed)
        model = make_ppo(vec, what.seed, PPOConfig())

        def train(steps: int) -> int:
            before = model.num_timesteps
            model.learn(steps, reset_num_timesteps=False)
            return model.num_timesteps - before

    pipe.send("ready")
    while (steps := pipe.recv()) is not None:
        started = time.perf_counter()
        done = train(steps)
        pipe.send((done, time.perf_counter() - started))
    if isinstance(what, Theirs):
        vec.close()


class Workers:
    """One or several learners, each in its own process, that train at the same time."""

    def __init__(self, learners: Sequence[Ours | Theirs]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for learner in learners:
            here, there = context.Pipe()
            # not daemonic: SubprocVecEnv has processes of its own
            process = context.Process(target=_work, args=(learner, there))
            process.start()
            self._pipes.append(here)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def train(self, steps: int) -> float:
        """Trains all for ``steps`` per run; returns steps per second in all, by the slowest's clock."""
        for pipe in self._pipes:
            pipe.send(steps)
        answers = [pipe.recv() for pipe in self._pipes]
        return sum(done for done, _ in answers) / max(seconds for _, seconds in answers)

    def close(self) -> None:
        """Ends the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join()


def measure(
    sides: Mapping[str, Sequence[Ours | Theirs]], steps: int, repeats: int
) -> dict[str, list[float]]:
    """Steps per second of every side, round by round; all sides make the same steps per run a round.

    Equal progress matters: bodies that walk cost more physics than bodies that fall.
    """
    workers = {name: Workers(learners) for name, learners in sides.items()}
    try:
        return interleave({name: lambda w=w: w.train(steps) for name, w in workers.items()}, repeats)
    finally:
        for w in workers.values():
            w.close()


def _best(
    sides: Mapping[str, Sequence[Ours | Theirs]], steps: int, repeats: int
) -> tuple[str, dict[str, float]]:
    """The fastest side of a quick probe, and the medians of all."""
    medians = {name: spread(v)["median"] for name, v in measure(sides, steps, repeats).items()}
    return max(medians, key=medians.__getitem__), medians


def peers(store: Store) -> None:
    """Ten runs of ours against SB3: one process of it, and one per core, each on its own seed."""
    cores = os.cpu_count() or 2
    probe_steps, steps, repeats = (2048, 2048, 1) if store.quick else (6144, 12288, 7)
    probe_repeats = 1 if store.quick else 3
    threads = sorted({1, cores})
    kinds = PROBED[:1] + PROBED[2:3] if store.quick else PROBED
    theirs: dict[str, Sequence[Ours | Theirs]] = {
        f"{kind} {n} envs, {t} torch threads": [Theirs(kind, n, t)] for kind, n in kinds for t in threads
    }
    best_theirs, probed_theirs = _best(theirs, probe_steps, probe_repeats)
    print(f"SB3 in one process: {probed_theirs}", flush=True)
    alone = theirs[best_theirs][0]
    assert isinstance(alone, Theirs)
    # in as many processes as cores every one has its core: one torch thread
    crowds: dict[str, Sequence[Ours | Theirs]] = {
        f"{kind} {n} envs": [Theirs(kind, n, 1, seed) for seed in range(cores)]
        for kind, n in kinds
        if kind == "dummy" or not store.quick
    }
    best_crowd, probed_crowds = _best(crowds, probe_steps, probe_repeats)
    print(f"SB3 in {cores} processes: {probed_crowds}", flush=True)
    ours: dict[str, Sequence[Ours | Theirs]] = {f"{t} torch threads": [Ours(RUNS, t)] for t in threads}
    best_ours, probed_ours = _best(ours, probe_steps, probe_repeats)
    print(f"ours: {probed_ours}", flush=True)

    native = Theirs("native", WORLDS, alone.torch_threads)
    speeds = measure(
        {
            "ours": ours[best_ours],
            "one": [alone],
            "crowd": crowds[best_crowd],
            "native": [native],
        },
        steps,
        repeats,
    )
    what = f"{RUNS} runs x {WORLDS} worlds"
    rows = [
        compare(
            what,
            "SB3 PPO, one process",
            speeds["ours"],
            speeds["one"],
            goal=6.0,
            note=f"best of the probe: SB3 with {best_theirs}, ours with {best_ours}; the aim is 10x",
        ),
        compare(
            what,
            f"SB3 PPO, {cores} processes, one per core",
            speeds["ours"],
            speeds["crowd"],
            goal=3.0,
            note=f"best of the probe: {best_crowd} in each process, one torch thread; the aim is 5x",
        ),
        compare(
            what,
            "SB3 PPO on our native batch, one process",
            speeds["ours"],
            speeds["native"],
            note="SB3's learner over our worlds: what our physics alone would give it",
        ),
    ]
    store.save(
        "training.peers",
        rows,
        config=dataclasses.asdict(PPOConfig()),
        probes={"sb3_one_process": probed_theirs, "sb3_per_core": probed_crowds, "ours": probed_ours},
    )


def runs(store: Store) -> None:
    """Ten runs of ours against one, the same worlds per run, each with PyTorch as in the harness."""
    steps, repeats = (2048, 1) if store.quick else (12288, 7)
    # one thread, see harness/run.py: a second one would hold up the side of one run
    sides = {str(n): [Ours(n, torch_threads=1)] for n in (RUNS, 1)}
    speeds = measure(sides, steps, repeats)
    row = compare(f"{RUNS} runs x {WORLDS} worlds", "1 run", speeds[str(RUNS)], speeds["1"])
    times = RUNS / row.ratio["median"]
    note = (
        f"{RUNS} runs take {times:.1f} times as long as 1; one torch thread on both sides, as in "
        "harness/run.py; physics bounds on a CPU (the goal is for a GPU)"
    )
    store.save(
        "training.runs", [dataclasses.replace(row, note=note)], config=dataclasses.asdict(PPOConfig())
    )
