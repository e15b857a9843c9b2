"""Bring your own agent: one training run, in a class with two methods and its networks.

Subclass :class:`Agent`, name it on the command line (``mtenvs loo Biped --agent my_package:MyAgent``), and
the whole protocol is done with it: pretraining, hand-over, learning the held-out task, evaluation,
checkpoints, report. ``docs/agents.md`` has an example to copy.

An agent that trains many runs at once says so (``many_runs = True``) and implements
:class:`baselines.learner.Learner` itself, as :class:`baselines.ppo.PPO` does.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from baselines.checkpoint import check_moments, load_checkpoint, save_checkpoint
from baselines.learner import DEFAULT_START, Described, Episodes, Start, layout_facts, play_episodes
from mtenvs.spec import NotFiniteError
from mtenvs.vector_env import TaskVectorEnv


class Agent(Described, abc.ABC):
    """One run of a learning algorithm; a :class:`baselines.learner.Learner` of one run.

    Subclasses implement :meth:`learn` and :meth:`act`; keep what they learn in ``networks``, a
    ``torch.nn.Module``, or say otherwise in :meth:`state` and :meth:`restore`; and set what
    :class:`baselines.learner.Described` lists.

    Args:
        worlds: worlds like those to be trained on; only their layout is to be read here:
            ``single_observation_space``, ``single_action_space``, ``observation_slices`` (which entries
            are the body's, the mask's and the code's).
        seed: of the run. Every random stream must derive from it.
        hyperparameters: the class's, with what the plan sets otherwise.
        device: ``"cpu"``, ``"cuda"`` or another PyTorch device.
    """

    many_runs: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.many_runs:
            raise TypeError(
                f"{cls.__name__}: an Agent trains one run at a time; one with many_runs derives from "
                "baselines.learner.Described"
            )

    networks: torch.nn.Module
    """All that is learned, normalisers included, in agents without a :meth:`state` of their own."""

    def __init__(
        self, worlds: TaskVectorEnv, seed: int, hyperparameters: Mapping[str, Any], device: str = "cpu"
    ) -> None:
        self.num_runs, self.steps = 1, 0
        starts, weights, noise = np.random.SeedSequence(seed).spawn(3)  # one stream for each purpose
        self._starts, self._weights = np.random.default_rng(starts), np.random.default_rng(weights)
        self.noise = torch.Generator()
        """The run's own stream of PyTorch's, on the CPU, for exploration and whatever else is drawn."""
        self.noise.manual_seed(int(noise.generate_state(1, np.uint64)[0]) % 2**63)
        self.config = dict(hyperparameters)
        self._layout = layout_facts(worlds)
        self._diverged = False

    @classmethod
    def make(
        cls, worlds: TaskVectorEnv, seeds: Sequence[int], config: Mapping[str, Any], device: str
    ) -> Agent:
        """Makes the agent as the harness does; see :class:`baselines.learner.Described`."""
        (seed,) = seeds
        return cls(worlds, seed, config, device)

    # ------------------------------------------------------- what a subclass writes

    @abc.abstractmethod
    def learn(self, worlds: TaskVectorEnv, steps: int) -> None:
        """Trains for ``steps`` more control steps, summed over the worlds.

        Called many times with the same worlds, which go on where they were, or with others, which start
        afresh: keep the last observations, and call :meth:`reset` when the worlds are others.

        Args:
            worlds: all of this run; every ``worlds.step`` counts ``worlds.num_envs`` control steps.
            steps: a multiple of ``worlds.num_envs`` times :meth:`rollout`.
        """

    @abc.abstractmethod
    def act(self, observations: np.ndarray) -> np.ndarray:
        """The deterministic policy: observations ``(n, size)`` to actions ``(n, num_actions)``."""

    def state(self) -> dict[str, Any]:
        """All that was learned and is handed on: arrays or tensors of numbers, by name."""
        return self.networks.state_dict()

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes over what :meth:`state` gave."""
        self.networks.load_state_dict(state)

    def updates(self) -> int:
        """Gradient updates so far, for the records."""
        return 0

    def begin(self) -> None:
        """For agents with a memory: evaluation begins, in all worlds, with nothing remembered."""

    def told(self, rewards: np.ndarray, ends: np.ndarray) -> None:
        """For agents with a memory: what an evaluated step brought.

        Args:
            rewards: of the actions of the last :meth:`act`, ``(n,)``.
            ends: whether they ended an episode, ``(n,)`` of bool; the next observation is another one's.
        """

    # ------------------------------------------------------------- what it gets for it

    @contextlib.contextmanager
    def seeded(self) -> Iterator[None]:
        """Draws of PyTorch's global stream inside, as weights are, follow from the run's seed alone."""
        with torch.random.fork_rng():
            torch.manual_seed(int(self._weights.integers(2**63)))
            yield

    @staticmethod
    def followed(observations: np.ndarray, info: Mapping[str, Any]) -> np.ndarray:
        """What followed on the last step: the *final* observation where an episode ended.

        Its value is what a truncated episode is still worth; ``worlds.step`` returns the first observation
        of the next one.

        Args:
            observations: that ``worlds.step`` returned, ``(num_envs, size)``; left as they are.
            info: that came with them.
        """
        if "final_obs" not in info:
            return observations
        following = observations.copy()
        for world in np.flatnonzero(info["_final_obs"]):
            following[world] = info["final_obs"][world]
        return following

    def reset(self, worlds: TaskVectorEnv) -> np.ndarray:
        """Starts worlds afresh, from seeds of the run's own that no evaluation has.

        Returns:
            Observations, ``(num_envs, size)`` of float32.
        """
        return worlds.reset(seed=[int(s) for s in self._starts.integers(2**31, size=worlds.num_envs)])[0]

    def train(
        self, worlds: TaskVectorEnv, until: int, progress: Callable[[int], object] | None = None
    ) -> int:
        """Trains to ``until`` steps; see :class:`baselines.learner.Learner`.

        A number that is not finite ends the training for good: the run has diverged.
        """
        before = worlds.steps_taken
        if until > self.steps and not self._diverged:
            try:
                self.learn(worlds, until - self.steps)
            except NotFiniteError:
                self._diverged = True
            except Exception:
                # what fails on bad numbers often fails elsewhere, in another way
                if self._finite():
                    raise
                self._diverged = True
        taken = worlds.steps_taken - before
        self.steps += taken
        if progress is not None and taken:
            progress(taken)
        return self.steps

    def evaluate(self, worlds: TaskVectorEnv, seeds: Sequence[int]) -> Episodes:
        """Plays one episode in every world; see :class:`baselines.learner.Learner`."""
        if not self.diverged()[0]:
            try:
                self.begin()
                return play_episodes(self.act, worlds, seeds, self.told)
            except NotFiniteError:
                self._diverged = True
        nothing = np.zeros(worlds.num_envs)
        return Episodes(nothing, nothing.astype(np.int64), nothing.astype(bool))

    def diverged(self) -> np.ndarray:
        """Whether the run met a number that is not finite, ``(1,)`` of bool."""
        self._diverged = self._diverged or not self._finite()
        return np.array([self._diverged])

    def _finite(self) -> bool:
        return all(bool(torch.isfinite(torch.as_tensor(v)).all()) for v in self.state().values())

    def describe(self) -> dict[str, Any]:
        """Gradient updates, and numbers in the state."""
        sizes = [torch.as_tensor(value).numel() for value in self.state().values()]
        return {"updates": self.updates(), "parameters": sum(sizes)}

    def _facts(self) -> dict[str, Any]:
        name = self.known_as or self.agent_name()
        return {"learner": name, "learner_version": self.version, **self._layout}

    def save(self, run: int, directory: Path) -> None:
        """Writes a checkpoint without pickle."""
        tensors = {name: torch.as_tensor(value) for name, value in self.state().items()}
        facts = {"steps": self.steps, "config": self.config, "diverged": bool(self.diverged()[0])}
        save_checkpoint(directory, tensors, {**self._facts(), **facts})

    def load(self, run: int, directory: Path, start: Start = DEFAULT_START) -> None:
        """Starts from a checkpoint; from one of a run that diverged, this one has diverged too.

        Raises:
            FileNotFoundError: if there is no checkpoint.
            ValueError: if it is of another agent, version, family, conditioning or layout, if it is
                damaged, or for a start that this agent does not offer.
        """
        start.check(self)
        try:
            tensors, facts = load_checkpoint(directory, self._facts())
        except NotFiniteError:
            self._diverged = True
            return
        if start.keep_optimizer:
            check_moments(directory, facts)
        self._diverged = bool(facts.get("diverged"))
        try:
            self.restore(self.started(tensors, start))
        except (KeyError, RuntimeError) as error:  # a tensor that is missing, or of another shape
            what = " ".join(str(error).split()).rstrip(".")
            raise ValueError(
                f"checkpoint {directory} is damaged: {what}; or the networks of agent "
                f"{self._facts()['learner']} have changed since, and its version should have been raised"
            ) from None

    def started(self, state: dict[str, torch.Tensor], start: Start) -> dict[str, torch.Tensor]:
        """What is taken over of a checkpoint's state: all, but for agents that list more in ``starts``.

        Those override this, and do there what ``start`` asks for.
        """
        if start.asked():
            raise NotImplementedError(f"{type(self).__name__}.started() does not know of {start.asked()}")
        return state
