"""The learners by name, and their hyperparameters per family, as data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from baselines.learner import Learner
from baselines.ppo import PPO, PPOConfig
from mtenvs.spec import did_you_mean
from mtenvs.vector_env import TaskVectorEnv

PPO_HYPERPARAMETERS: dict[str, PPOConfig] = {}
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


def describe_learner(name: str, family: str) -> LearnerDescription:
    """What a plan for a family should freeze of a learner.

    Raises:
        ValueError: for an unknown learner.
    """
    _check(name)
    config = PPO_HYPERPARAMETERS.get(family, PPOConfig())
    # through JSON, so that what is frozen equals what is read back
    return LearnerDescription(name, config.num_steps, json.loads(json.dumps(dataclasses.asdict(config))))


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
    _check(name)
    known = {f.name for f in dataclasses.fields(PPOConfig)}
    if unknown := set(config) - known:
        raise ValueError(f"unknown hyperparameters {sorted(unknown)}; valid: {', '.join(sorted(known))}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return PPO(worlds, seeds, PPOConfig(**values), device)


LEARNERS: dict[str, Callable[..., Learner]] = {"ppo": PPO}
"""Learners by name."""


def _check(name: str) -> None:
    if name not in LEARNERS:
        raise ValueError(
            f"unknown learner {name!r}{did_you_mean(name, LEARNERS)}; valid: {', '.join(LEARNERS)}"
        )
