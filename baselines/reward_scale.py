"""Rewards divided by the running deviation of discounted returns, of a run or of each of its tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from baselines.stacked import RunningMoments

RETURN_SCALES = ("run", "task")
"""Over what the deviation is taken: over all of a run's worlds, or over those of each task alone."""


class RewardScale:
    """The running scale of rewards of R runs, each its own.

    Args:
        num_runs: R.
        gamma: discount factor.
        by: one of ``RETURN_SCALES``.
        device: where the tensors live.
    """

    def __init__(self, num_runs: int, gamma: float, by: str, device: torch.device) -> None:
        self._gamma, self._by_task = gamma, by == "task"
        # a column of the moments is a task of the run, whose names these are; there is one if all are one
        self._names: list[list[str]] = [[] if self._by_task else [""] for _ in range(num_runs)]
        self._worlds: list[list[str]] = [[] for _ in range(num_runs)]
        self.moments = RunningMoments(num_runs, len(self._names[0]), device)

    def enter(self, names: Sequence[Sequence[str]]) -> None:
        """Starts on new worlds, whose discounted returns are zero; the moments go on.

        Args:
            names: of the task of every world, run by run.
        """
        self._worlds = [list(own) if self._by_task else [""] * len(own) for own in names]
        device = self.moments.mean.device
        self._discounted = torch.zeros(len(names), len(names[0]), dtype=torch.float64, device=device)
        self._set_columns()

    def _set_columns(self) -> None:
        """Finds every world's column; tasks that are new get one that has seen nothing."""
        for known, own in zip(self._names, self._worlds, strict=True):
            known += [name for name in dict.fromkeys(own) if name not in known]
        self.moments.widen(max(len(known) for known in self._names))
        each = zip(self._names, self._worlds, strict=True)
        columns = [[known.index(name) for name in own] for known, own in each]
        self._columns = torch.tensor(columns, dtype=torch.int64, device=self.moments.mean.device)

    def __call__(self, rewards: Tensor, dones: Tensor) -> Tensor:
        """Takes in rewards ``(T, R, W)`` and returns them scaled and clipped to [-10, 10]."""
        returns = torch.empty_like(rewards)
        for t in range(len(rewards)):
            self._discounted = returns[t] = self._discounted * self._gamma + rewards[t]
            self._discounted = self._discounted * ~dones[t]
        batch, present = returns.transpose(0, 1).flatten(1).unsqueeze(2), None  # (R, T W, 1)
        if self._by_task:
            own = torch.nn.functional.one_hot(self._columns, self.moments.mean.shape[1])
            present = own.repeat(1, len(rewards), 1)  # (R, T W, K)
            batch = batch.expand_as(present)
        self.moments.update(batch, present)
        scale = (self.moments.var + 1e-8).rsqrt().gather(1, self._columns)
        return (rewards * scale).clamp(-10.0, 10.0).float()

    def get_state(self) -> dict[str, Any]:
        """All that it depends on; see :meth:`set_state`."""
        return {"names": self._names, "discounted": self._discounted, "moments": self.moments.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`get_state` returned, after :meth:`enter` with the same tasks."""
        self._names = [list(names) for names in state["names"]]
        self._set_columns()
        self.moments.set_state(state["moments"])
        self._discounted.copy_(state["discounted"])

    def tensors(self, run: int) -> dict[str, Tensor]:
        """One run's numbers, for a checkpoint."""
        return {k: t[: len(self._names[run])] for k, t in self.moments.tensors(run).items()}

    def facts(self, run: int) -> dict[str, list[str]]:
        """Which tasks one run's tensors are of, for a checkpoint; nothing where they are of all."""
        return {"return_tasks": list(self._names[run])} if self._by_task else {}

    def restore(self, run: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Sets one run's numbers from a checkpoint; tasks that it does not name start afresh.

        Args:
            run: which run.
            tensors: of :meth:`tensors`; empty for a scale that starts afresh.
            facts: of :meth:`facts`, among others.

        Raises:
            ValueError: if there are not as many numbers as tasks.
        """
        names = facts.get("return_tasks", []) if self._by_task else [""]
        if not isinstance(names, list) or any(t.shape != (len(names),) for t in tensors.values()):
            raise ValueError(f"checkpoint is damaged: its scale of returns is not of the tasks {names!r}")
        self._names[run] = list(names)
        self._set_columns()
        moments = RunningMoments(1, self.moments.mean.shape[1], self.moments.mean.device).tensors(0)
        for name, values in tensors.items():
            moments[name][: len(names)] = values
        self.moments.restore(run, moments)
