"""Speed of the environments: against bare physics, over threads, and against the peers."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import mujoco.batch
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import mtenvs
from benchmarks.clock import Clock
from benchmarks.record import Row, Store, compare, interleave, spread
from mtenvs.adapters.sb3 import TaskVecEnv
from mtenvs.backends.mujoco_batch import BatchBackend
from mtenvs.vector_env import TaskVectorEnv

FAMILY = "Biped"
BARE_SIZES = {"Biped": (256, 1024), "Octopus": (256, 1024)}
"""Worlds at which a family is held against bare physics; 256 for the others."""
GOALS = {"Octopus": 0.85}
"""Least share of bare physics' speed; 0.90 for the others. The arms are a mixture of eight topologies."""


def _make(num_envs: int, num_threads: int = 0, family: str = FAMILY) -> TaskVectorEnv:
    """Our worlds, all published tasks, with staggered episodes so that they do not all end at once."""
    envs = gym.make_vec(f"mt/{family}-v0", num_envs=num_envs, num_threads=num_threads).unwrapped
    assert isinstance(envs, TaskVectorEnv)
    elapsed = np.random.default_rng(1).integers(envs.family.episode_steps, size=num_envs)
    envs.reset(seed=0, options={"elapsed_steps": elapsed})
    return envs


def _actions(steps: int, num_envs: int, nu: int) -> np.ndarray:
    """The action sequence that all sides of a comparison play, ``(steps, num_envs, nu)``."""
    return np.random.default_rng(0).uniform(-1.0, 1.0, (steps, num_envs, nu)).astype(np.float32)


def _stepping(step: Callable[[Any], Any], actions: np.ndarray) -> Callable[[], float]:
    """A side of a comparison: plays the actions and returns environment steps per second."""

    def measure() -> float:
        started = time.perf_counter()
        for action in actions:
            step(action)
        return actions.shape[0] * actions.shape[1] / (time.perf_counter() - started)

    return measure


# -------------------------------------------------------------------------- a. against bare physics


Starts = list[tuple[np.ndarray, np.ndarray, np.ndarray]]
"""For every topology, the worlds that started anew and their ``qpos`` and ``qvel``."""


class Replay:
    """Plays on bare batches what an environment did: the same actions, the same starts, the same states.

    Bare batches left alone would let their bodies fall and lie, with other contacts at another cost;
    so the environment's resets are made here too, *off the clock*: only ``Batch.step`` is on it.
    """

    def __init__(self, envs: TaskVectorEnv) -> None:
        self.groups = envs._groups
        self.backends = [
            BatchBackend(g.backend.models, g.backend.state.constants, (), g.family.frame_skip)
            for g in self.groups
        ]
        self.clocks = [Clock.of(backend) for backend in self.backends]
        for backend, group in zip(self.backends, self.groups, strict=True):
            backend.set_state(group.backend.get_state())

    def controls(self, actions: np.ndarray) -> list[list[np.ndarray]]:
        """What each topology is given at each step, cut out beforehand."""
        return [[a[g.worlds][:, g.columns.action] for g in self.groups] for a in actions]

    def step(self, controls: list[np.ndarray], starts: Starts | None) -> None:
        """One control step, then the starts that the environment made after it."""
        for backend, control in zip(self.backends, controls, strict=True):
            backend.step(control)
        if starts is not None:
            for backend, (ids, qpos, qvel) in zip(self.backends, starts, strict=True):
                if len(ids):
                    backend.reset(ids, qpos, qvel)

    def check(self) -> None:
        """Makes sure that both sides have gone through the same states.

        Raises:
            AssertionError: otherwise.
        """
        for backend, group in zip(self.backends, self.groups, strict=True):
            if not np.array_equal(backend.state.qpos, group.backend.state.qpos):
                raise AssertionError("the bare batch has left the environment's states: no fair comparison")


def _starts(envs: TaskVectorEnv, ended: np.ndarray) -> Starts | None:
    """The episodes that have just begun in worlds that have ``ended``, ``(num_envs,)`` of bool."""
    if not ended.any():
        return None
    starts = []
    for group in envs._groups:
        ids, state = np.flatnonzero(ended[group.worlds]), group.backend.state
        starts.append((ids, state.qpos[ids], state.qvel[ids]))
    return starts


def bare(store: Store) -> None:
    """The whole environment step over bare ``Batch.step``, on the same models in the same states.

    The goal's ratio: environment steps/s of ``TaskVectorEnv.step`` (checks, observation, reward,
    termination, ``info``, autoreset) over environment steps/s of the ``Batch.step`` calls alone of
    bare batches that are led through the very same states, for every family. The note has the share
    of time that the environment itself spends inside ``Batch.step``: the same question asked in one run.
    """
    rows: list[Row] = []
    for family in mtenvs.families():
        for worlds in BARE_SIZES.get(family, (256,)):
            rows.append(_bare_row(family, worlds, store.quick))
            store.save("environments.bare", rows)


def _bare_row(family: str, worlds: int, quick: bool) -> Row:
    """One family at one number of worlds."""
    envs = _make(worlds, family=family)
    seconds_of_physics = 1e-5 * envs._groups[0].family.frame_skip * worlds
    control_steps, repeats = (5, 1) if quick else (max(20, min(200, round(0.8 / seconds_of_physics))), 9)
    replay = Replay(envs)
    clocks = [Clock.of(group.backend) for group in envs._groups]
    actions = _actions(control_steps, worlds, envs.num_actions)
    controls = replay.controls(actions)
    shares: list[float] = []
    starts: list[Starts | None] = []

    def whole() -> float:
        starts.clear()
        seconds = 0.0
        for clock in clocks:
            clock.seconds = 0.0
        for action in actions:
            started = time.perf_counter()
            _, _, terminations, truncations, _ = envs.step(action)
            seconds += time.perf_counter() - started
            starts.append(_starts(envs, terminations | truncations))
        shares.append(sum(clock.seconds for clock in clocks) / seconds)
        return actions.shape[0] * worlds / seconds

    def physics() -> float:
        for clock in replay.clocks:
            clock.seconds = 0.0
        for control, start in zip(controls, starts, strict=True):
            replay.step(control, start)
        replay.check()
        return actions.shape[0] * worlds / sum(clock.seconds for clock in replay.clocks)

    speeds = interleave({"whole": whole, "physics": physics}, repeats)
    share = spread(shares[1:])
    ended = sum(len(ids) for s in starts if s is not None for ids, _, _ in s) / actions.shape[0] / worlds
    skip = envs._groups[0].family.frame_skip
    topologies = f" in {len(envs._groups)} topologies" if len(envs._groups) > 1 else ""
    # a window shorter than an episode: the count says how often worlds started anew, not how long they last
    lasts = f"one episode ended for every {1 / ended:.0f} steps" if ended else "no episode ended"
    lasts += f", over all worlds, of which each made {actions.shape[0]} in a repetition"
    return compare(
        f"{family}, {worlds} worlds{topologies}",
        "bare Batch.step, same states",
        speeds["whole"],
        speeds["physics"],
        goal=GOALS.get(family, 0.90),
        substeps=(skip, skip),
        note=f"share of the environment's own time inside Batch.step {share['median']:.3f} "
        f"[{share['min']:.3f}, {share['max']:.3f}]; {lasts}",
    )


# --------------------------------------------------------------------------------------- b. threads


def threads(store: Store) -> None:
    """Our worlds on one thread and on two."""
    control_steps, repeats = (2560, 1) if store.quick else (51200, 9)
    rows = []
    for worlds in (256, 1024):
        sides = {}
        for count in (2, 1):
            envs = _make(worlds, num_threads=count)
            actions = _actions(control_steps // worlds, worlds, envs.single_action_space.shape[0])
            sides[str(count)] = _stepping(envs.step, actions)
        speeds = interleave(sides, repeats)
        substeps = (envs.family.frame_skip, envs.family.frame_skip)
        rows.append(
            compare(
                f"environment on 2 threads, {worlds} worlds",
                "on 1 thread",
                speeds["2"],
                speeds["1"],
                goal=1.8,
                substeps=substeps,
            )
        )
        store.save("environments.threads", rows)


# ------------------------------------------------------------- c. our single environments elsewhere


def _single(task: int) -> gym.Env[Any, Any]:
    return gym.make(f"mt/{FAMILY}-v0", task=task)


def _peers(num_envs: int) -> dict[str, tuple[Any, float]]:
    """Name to vector environment and goal; every one autoresets in the same step, as ours does."""
    from stable_baselines3.common.vec_env import SubprocVecEnv

    count = len(mtenvs.tasks(FAMILY))
    makers = [functools.partial(_single, i % count) for i in range(num_envs)]
    same = AutoresetMode.SAME_STEP
    return {
        # processes first and forked: there are no threads yet that a fork would lose
        f"Gymnasium AsyncVectorEnv, {num_envs} processes": (
            AsyncVectorEnv(makers, autoreset_mode=same),
            6.0,
        ),
        f"SB3 SubprocVecEnv, {num_envs} processes": (SubprocVecEnv(makers, start_method="fork"), 6.0),
        "Gymnasium SyncVectorEnv": (SyncVectorEnv(makers, autoreset_mode=same), 5.0),
    }


def vectors(store: Store) -> None:
    """Our worlds against our own single environments in the libraries' vector environments.

    AsyncVectorEnv and SubprocVecEnv start one process per world and offer nothing else, so there are far
    more processes than cores; SyncVectorEnv plays all worlds in one process. One more row compares with
    the fastest of the three. Ours runs at the peers' 64 worlds, which is what the goals are held against,
    and at 256.
    """
    num_envs, steps, repeats = (8, 5, 1) if store.quick else (64, 100, 7)
    peers = _peers(num_envs)
    nu = gym.make(f"mt/{FAMILY}-v0", task=0).action_space.shape[0]
    actions = _actions(steps, num_envs, nu)
    sides: dict[str, Callable[[], float]] = {}
    for size in (num_envs, 4 * num_envs):
        # five times the peers' control steps: ours takes so much less time for each
        sides[f"ours, {size}"] = _stepping(_make(size).step, _actions(5 * steps, size, nu))
    # made after the peers have forked; its episodes are staggered, so that it is not reset again
    adapter = f"our Stable-Baselines3 adapter, {num_envs} worlds"
    sides[adapter] = _stepping(TaskVecEnv(_make(num_envs)).step, _actions(5 * steps, num_envs, nu))
    for name, (envs, _) in peers.items():
        envs.reset(seed=0) if isinstance(envs, gym.vector.VectorEnv) else envs.reset()
        sides[name] = _stepping(envs.step, actions)
    speeds = interleave(sides, repeats)
    for envs, _ in peers.values():
        envs.close()
    skip = mtenvs.registry.get_family(FAMILY).frame_skip
    sync = "Gymnasium SyncVectorEnv"
    notes = {}
    for name in peers:
        if name != sync:
            share = spread([a / b for a, b in zip(speeds[name], speeds[sync], strict=True)])
            notes[name] = (
                f"one process per world, as the library does it: {num_envs} processes on "
                f"{os.cpu_count()} cores make {share['median']:.2f} [{share['min']:.2f}, "
                f"{share['max']:.2f}] times the steps of SyncVectorEnv in one process"
            )
    rows = [
        compare(
            f"environment, {size} worlds",
            f"{name}, {num_envs} worlds",
            speeds[f"ours, {size}"],
            speeds[name],
            goal=goal if size == num_envs else None,
            substeps=(skip, skip),
            note=notes.get(name, "") if size == num_envs else "",
        )
        for size in (num_envs, 4 * num_envs)
        for name, (_, goal) in peers.items()
    ]
    subproc = f"SB3 SubprocVecEnv, {num_envs} processes"
    rows.append(
        compare(
            adapter,
            f"{subproc}, {num_envs} worlds",
            speeds[adapter],
            speeds[subproc],
            goal=6.0,
            substeps=(skip, skip),
        )
    )
    best = max(peers, key=lambda name: spread(speeds[name])["median"])
    rows.append(
        compare(
            f"environment, {num_envs} worlds",
            f"fastest of the three: {best}, {num_envs} worlds",
            speeds[f"ours, {num_envs}"],
            speeds[best],
            substeps=(skip, skip),
        )
    )
    store.save("environments.vectors", rows)


# ----------------------------------------------------------------------- d. EnvPool on the same model

WALKER_FRAME_SKIP, WALKER_EPISODE, WALKER_NOISE = 4, 1000, 5e-3


class Walkers:
    """Gymnasium's ``Walker2d-v5`` as a loop over ``mujoco.batch``: its model, its numbers, in NumPy.

    Autoresets in the same step. See ``gymnasium/envs/mujoco/walker2d_v5.py`` for every constant.
    """

    def __init__(self, num_envs: int, num_threads: int, seed: int = 0) -> None:
        import gymnasium.envs.mujoco as package

        model = mujoco.MjModel.from_xml_path(
            str(Path(package.__file__).parent / "assets" / "walker2d_v5.xml")
        )
        self.batch = mujoco.batch.Batch(model, num_envs, nthread=num_threads, persistent=True)
        self.batch.reset(stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        self._blank = self.batch.state[0].copy()
        self.qpos, self.qvel, self._ctrl = (self.batch.bind(name) for name in ("qpos", "qvel", "ctrl"))
        self._home = self.qpos[0].copy()
        self._dt = WALKER_FRAME_SKIP * model.opt.timestep
        self._rng = np.random.default_rng(seed)
        self._elapsed = np.zeros(num_envs, np.int64)
        self.num_envs, self.num_actions = num_envs, model.nu

    def _start(self, ids: np.ndarray) -> None:
        self.batch.state[ids] = self._blank
        shape = (len(ids), len(self._home))
        self.qpos[ids] = self._home + self._rng.uniform(-WALKER_NOISE, WALKER_NOISE, shape)
        self.qvel[ids] = self._rng.uniform(-WALKER_NOISE, WALKER_NOISE, shape)
        self._elapsed[ids] = 0

    def observe(self) -> np.ndarray:
        """``(num_envs, 17)``: positions without x, velocities clipped to 10."""
        return np.concatenate([self.qpos[:, 1:], np.clip(self.qvel, -10.0, 10.0)], axis=1)

    def reset(self) -> np.ndarray:
        """Starts all worlds."""
        self._start(np.arange(self.num_envs))
        return self.observe()

    def advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Steps without resets; returns rewards and terminations ``(num_envs,)``."""
        before = self.qpos[:, 0].copy()
        self._ctrl[:] = actions
        # RK4 computes its own stages and the observation needs no sensors: no stage is asked for
        self.batch.step(nstep=WALKER_FRAME_SKIP)
        height, pitch = self.qpos[:, 1], self.qpos[:, 2]
        healthy = (height > 0.8) & (height < 2.0) & (np.abs(pitch) < 1.0)
        # forward speed + 1 while healthy - 1e-3 |a|^2
        rewards = (self.qpos[:, 0] - before) / self._dt + healthy - 1e-3 * np.square(actions).sum(axis=1)
        return rewards, ~healthy

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One control step of all worlds: observations, rewards, terminations, truncations."""
        rewards, terminations = self.advance(actions)
        self._elapsed += 1
        truncations = self._elapsed >= WALKER_EPISODE
        ids = np.flatnonzero(terminations | truncations)
        if len(ids):
            self._start(ids)
        return self.observe(), rewards, terminations, truncations


def check_walkers(steps: int = 50) -> float:
    """Plays one world beside Gymnasium's ``Walker2d-v5`` and returns the largest difference.

    Raises:
        AssertionError: if observation, reward or termination differ.
    """
    env = gym.make("Walker2d-v5").unwrapped
    env.reset(seed=0)
    ours = Walkers(1, 1)
    rng, largest = np.random.default_rng(0), 0.0
    for t in range(steps):
        if t % 10 == 0:  # from the same state, now and then another one
            env.reset()
            ours.reset()
            ours.qpos[0], ours.qvel[0] = env.data.qpos, env.data.qvel
        action = rng.uniform(-1.0, 1.0, ours.num_actions)
        observation, reward, terminated, _, _ = env.step(action)
        rewards, terminations = ours.advance(action[None])
        np.testing.assert_allclose(ours.observe()[0], observation, rtol=0, atol=1e-9)
        np.testing.assert_allclose(rewards[0], reward, rtol=0, atol=1e-9)
        assert bool(terminations[0]) == terminated, (t, ours.qpos[0])
        largest = max(
            largest, float(np.abs(ours.observe()[0] - observation).max()), abs(rewards[0] - reward)
        )
    env.close()
    return largest


def walker2d(store: Store) -> None:
    """A ``mujoco.batch`` loop against EnvPool, both ``Walker2d-v5``: model, substeps and integrator alike.

    EnvPool spends a call of its own on a reset, without physics; such calls are not counted as steps.
    By default it also computes ``mj_rnePostConstraint``, as Gymnasium does, though Walker2d reads none of
    it: the goal is held against EnvPool without, which is the same work as ours.
    """
    import envpool

    largest = check_walkers()
    num_envs, steps, repeats = (16, 10, 1) if store.quick else (256, 100, 9)
    rows = []
    for count, post_constraint in ((2, False), (2, True), (1, False)):
        pool = envpool.make_gymnasium(
            "Walker2d-v5",
            num_envs=num_envs,
            batch_size=num_envs,
            num_threads=count,
            post_constraint=post_constraint,
            seed=0,
        )
        pool.reset()
        ours = Walkers(num_envs, count)
        ours.reset()
        actions = _actions(steps, num_envs, ours.num_actions).astype(np.float64)
        # calls on which a world starts anew instead of being stepped
        idle = np.zeros(num_envs, bool)

        def theirs(pool: Any = pool, actions: np.ndarray = actions, idle: np.ndarray = idle) -> float:
            idling, started = 0, time.perf_counter()
            for action in actions:
                idling += np.count_nonzero(idle)
                _, _, terminations, truncations, _ = pool.step(action)
                np.logical_or(terminations, truncations, out=idle)
            return (actions.shape[0] * actions.shape[1] - idling) / (time.perf_counter() - started)

        speeds = interleave({"ours": _stepping(ours.step, actions), "envpool": theirs}, repeats)
        pool.close()
        rows.append(
            compare(
                f"Walker2d-v5 on mujoco.batch, {num_envs} worlds, {count} thread{'s' * (count > 1)}",
                "EnvPool as it comes (post_constraint)" if post_constraint else "EnvPool",
                speeds["ours"],
                speeds["envpool"],
                goal=1.05 if count == 2 and not post_constraint else None,
                substeps=(WALKER_FRAME_SKIP, WALKER_FRAME_SKIP),
                note=f"RK4; largest difference from Gymnasium's Walker2d-v5 in 50 steps {largest:.0e}; "
                "EnvPool's calls that only reset a world are not counted as steps",
            )
        )
        store.save("environments.walker2d", rows)
