"""The learners by name, and their hyperparameters per family, as data."""

from __future__ import annotations

import bisect
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from baselines.checkpoint import read_facts
from baselines.learner import Learner
from baselines.ppo import PPO, PPOConfig
from mtenvs.registry import get_families
from mtenvs.spec import did_you_mean
from mtenvs.vector_env import TaskVectorEnv

PPO_HYPERPARAMETERS: dict[str, PPOConfig] = {
    # It starts lying anywhere and has to stand up first, so it needs longer rollouts and more noise.
    # Five configurations of 600k to 900k steps on tasks that are not published: speeds 2.5, -0.6 and 6 m/s,
    # lifts of 0.05 and 0.1 m, also at 0.6 m/s.
    "DMWalker": PPOConfig(num_steps=64, num_minibatches=16, initial_log_std=0.0, ent_coef=0.005),
}
"""PPO's configuration by family, where it is not the default. Tuned on sampled tasks only."""


@dataclasses.dataclass(frozen=True)
class LearnerDescription:
    """What a plan freezes of a learner."""

    name: str
    """Name in this registry."""
    rollout: int
    """Control steps of a world that are trained on at once; checkpoints are rounded up to whole ones."""
    config: dict[str, Any]
    """Hyperparameters, as JSON."""


@dataclasses.dataclass(frozen=True)
class LearnerEntry:
    """How the harness comes by a learner."""

    describe: Callable[[str], LearnerDescription]
    """Family's name to what a plan freezes."""
    make: Callable[[TaskVectorEnv, Sequence[int], Mapping[str, Any], str], Learner]
    """Worlds like those to train on, one seed per run, frozen hyperparameters and device to the learner."""
    widen: Callable[[TaskVectorEnv, Mapping[str, Any], int], dict[str, Any]] | None = None
    """Worlds, frozen hyperparameters and a factor to hyperparameters with about so many times the
    parameters; ``None`` for learners that have no width to change."""


def _describe_ppo(family: str) -> LearnerDescription:
    config = PPO_HYPERPARAMETERS.get(family, PPOConfig())
    # through JSON, so that what is frozen equals what is read back
    return LearnerDescription("ppo", config.num_steps, json.loads(json.dumps(dataclasses.asdict(config))))


def _make_ppo(
    worlds: TaskVectorEnv, seeds: Sequence[int], config: Mapping[str, Any], device: str
) -> Learner:
    known = {f.name for f in dataclasses.fields(PPOConfig)}
    if unknown := set(config) - known:
        raise ValueError(f"unknown hyperparameters {sorted(unknown)}; valid: {', '.join(sorted(known))}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return PPO(worlds, seeds, PPOConfig(**values), device)


def _widen_ppo(worlds: TaskVectorEnv, config: Mapping[str, Any], factor: int) -> dict[str, Any]:
    """All hidden layers wider in the same proportion, to the nearest number of parameters."""

    def parameters(scale: float) -> tuple[int, dict[str, Any]]:
        wide = {**config, "hidden": [max(1, round(units * scale)) for units in config["hidden"]]}
        return int(_make_ppo(worlds, [0], wide, "cpu").describe()["parameters"]), wide

    wanted = factor * parameters(1.0)[0]
    # the count lies between factor, where the layers' own products are little, and its root
    first = config["hidden"][0]
    units = range(first, first * factor + 1)
    k = bisect.bisect_left(units, wanted, key=lambda n: parameters(n / first)[0])
    near = [parameters(units[i] / first) for i in (k - 1, k) if 0 <= i < len(units)]
    return min(near, key=lambda found: abs(found[0] - wanted))[1]


LEARNERS: dict[str, LearnerEntry] = {"ppo": LearnerEntry(_describe_ppo, _make_ppo, _widen_ppo)}
"""Learners by name."""


def describe_learner(name: str, family: str) -> LearnerDescription:
    """What a plan for a family should freeze of a learner.

    Raises:
        ValueError: for an unknown learner.
    """
    return _entry(name).describe(family)


def widened(name: str, family: str, config: Mapping[str, Any], factor: int, **env_options: Any) -> Any:
    """Hyperparameters with which a learner has about ``factor`` times as many parameters.

    Args:
        name: of the learner.
        family: that it will be trained on.
        config: its hyperparameters, as JSON.
        factor: at least 1.
        env_options: ``conditioning`` and ``layout`` of the worlds.

    Raises:
        ValueError: for an unknown learner, or one that has no width to change.
    """
    widen = _entry(name).widen
    if widen is None:
        raise ValueError(f"learner {name!r} cannot be made wider, which the arm joint-wide needs")
    worlds = TaskVectorEnv(family, num_envs=1, **env_options)
    return json.loads(json.dumps(widen(worlds, config, factor)))


def make_learner(
    name: str, config: Mapping[str, Any], worlds: TaskVectorEnv, seeds: Sequence[int], device: str = "cpu"
) -> Learner:
    """Makes a learner from what a plan has frozen.

    Args:
        name: of the learner.
        config: its hyperparameters, as JSON.
        worlds: worlds like those it will be trained on.
        seeds: one per run.
        device: where its networks live.

    Raises:
        ValueError: for an unknown learner or hyperparameter.
    """
    return _entry(name).make(worlds, seeds, config, device)


@dataclasses.dataclass(frozen=True)
class Policy:
    """A trained network, to be looked at."""

    act: Callable[[np.ndarray], np.ndarray]
    """Observations ``(1, size)`` to actions ``(1, num_actions)``, without noise."""
    env_options: dict[str, Any]
    """How it was told of its tasks, as arguments of ``gymnasium.make``: ``conditioning``, ``layout``."""


def load_policy(directory: Path, family: str, device: str = "cpu") -> Policy:
    """Loads the network of a checkpoint, of whichever learner, as ``Learner.save`` wrote it.

    Args:
        directory: the checkpoint's.
        family: name of the family, or of the set of families, that it is wanted for.
        device: where it is to live.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if it is of another family or of an unknown learner, if its learner has no ``act``,
            or if it is damaged.
    """
    facts, wanted = read_facts(directory), get_families(family).id
    if facts.get("family") != wanted:
        raise ValueError(
            f"checkpoint {directory} is a policy of {facts.get('family')!r}, not of {wanted!r}"
        )
    options: dict[str, Any] = {name: facts[name] for name in ("conditioning", "layout") if name in facts}
    worlds = TaskVectorEnv(family, num_envs=1, **options)
    learner = make_learner(str(facts.get("learner")), facts.get("config", {}), worlds, [0], device)
    act = getattr(learner, "act", None)
    if act is None:
        raise ValueError(f"learner {facts['learner']!r} cannot be watched: it has no act()")
    try:
        learner.load(0, directory)
    except (KeyError, RuntimeError) as error:  # a tensor that is missing, or of another shape
        raise ValueError(f"checkpoint {directory} is damaged: {error}") from None
    worlds.close()
    return Policy(act, options)


def _entry(name: str) -> LearnerEntry:
    if name not in LEARNERS:
        raise ValueError(
            f"unknown learner {name!r}{did_you_mean(name, LEARNERS)}; valid: {', '.join(LEARNERS)}"
        )
    return LEARNERS[name]
