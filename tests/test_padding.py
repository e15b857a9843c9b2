"""Bodies of unequal size in one layout: padding carries no information, and does nothing.

Of every family whose bodies differ in size, in every layout; what holds of the layouts' names alone is in
test_conditioning.py.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers import actions, assert_same, present_entries, rollout

import mtenvs
from baselines.ppo import PPO, PPOConfig
from mtenvs.vector_env import TaskVectorEnv

PADDED = [f for name in mtenvs.families() if len((f := mtenvs.get_family(name)).topologies) > 1]
# in families whose entries have more than one way to be placed
PAIRS = [(family.name, *pair) for family in PADDED for pair in itertools.combinations(family.layouts, 2)]
LAYOUTS = [(family.name, layout) for family in PADDED for layout in family.layouts or (None,)]
every_pair = pytest.mark.parametrize(("name", "one", "other"), PAIRS)
every_layout = pytest.mark.parametrize(("name", "layout"), LAYOUTS)
# minibatches so small that an entropy bonus and several updates all play their part
SMALL = PPOConfig(num_steps=8, num_minibatches=2, update_epochs=2, hidden=(8, 8), ent_coef=0.01)


def test_there_is_something_to_test() -> None:
    assert ("Octopus", "arc") in LAYOUTS
    assert ("Octopus", "index") in LAYOUTS
    assert ("Octopus", "index", "arc") in PAIRS


def lacks(name: str, tasks: Sequence[mtenvs.Task], layout: str | None) -> tuple[np.ndarray, np.ndarray]:
    """What every world lacks: of the whole observation (masks and codes are there), and of the action."""
    family = mtenvs.get_family(name)
    size = gym.make(family.id, layout=layout).observation_space.shape[0]
    observation = np.zeros((len(tasks), size), bool)
    action = np.zeros((len(tasks), len(family.action_names)), bool)
    for row, task in enumerate(tasks):
        observed, acting = present_entries(family, task, layout)
        body = [entry not in observed for entry in family.observation_names]
        observation[row, : len(body)] = body
        action[row] = [entry not in acting for entry in family.action_names]
    return observation, action


def mixture(name: str) -> list[mtenvs.Task]:
    """All published tasks and as many sampled ones, sizes in no order."""
    family = mtenvs.get_family(name)
    sampled = [mtenvs.sample_task(name, seed) for seed in range(len(family.tasks))]
    tasks = [*family.tasks, *sampled]
    return [tasks[i] for i in np.random.default_rng(0).permutation(len(tasks))]


def returned(seen: Sequence[Any]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All observations of a rollout, final ones included, with their worlds."""
    for result in seen:
        yield result[0], np.arange(len(result[0]))
        for world, final in enumerate(result[-1].get("final_obs", ())):
            if final is not None:
                yield final[None], np.array([world])


# ---- observations and actions


@every_layout
@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
def test_padding_is_zero_whatever_happens(name: str, layout: str | None, mode: str) -> None:
    """Over resets, episodes' ends and their final observations, and changes of task."""
    tasks = mixture(name)
    env = gym.make_vec(
        mtenvs.get_family(name).id,
        num_envs=len(tasks),
        tasks=tasks,
        layout=layout,
        max_episode_steps=7,
        autoreset_mode=mode,
    )
    for turn in range(2):
        absent, _ = lacks(name, tasks, layout)
        assert absent.any(axis=1).sum() > len(tasks) / 2
        finals = 0
        for observations, worlds in returned(rollout(env, 20, seed=turn)):
            assert not observations[absent[worlds]].any()
            finals += len(worlds) == 1
        assert finals == (2 * len(tasks) if mode == "SameStep" else 0)
        tasks = tasks[1:] + tasks[:1]
        env.reset(options={"tasks": tasks})


@every_layout
def test_padding_is_zero_when_one_environment_changes_its_body(name: str, layout: str | None) -> None:
    """What a larger body has written is gone when a smaller one follows."""
    family = mtenvs.get_family(name)
    env = gym.make(family.id, layout=layout)
    absent, _ = lacks(name, family.tasks, layout)
    for number in (*range(len(family.tasks)), *reversed(range(len(family.tasks)))):
        observation, info = env.reset(seed=number, options={"task": number})
        assert info["task"] == number
        for _ in range(3):
            assert not observation[absent[number]].any()
            observation, *_ = env.step(env.action_space.sample())


@every_layout
def test_padded_actions_do_nothing(name: str, layout: str | None) -> None:
    tasks = mixture(name)
    _, idle = lacks(name, tasks, layout)
    assert idle.any()
    envs = [
        gym.make_vec(mtenvs.get_family(name).id, num_envs=len(tasks), tasks=tasks, layout=layout)
        for _ in range(2)
    ]
    a, b = (env.reset(seed=0) for env in envs)
    assert_same(a, b)
    rng = np.random.default_rng(1)
    for action in actions(envs[0], 0, 40):
        other = np.where(idle, rng.uniform(-5, 5, action.shape), action)
        assert_same(envs[0].step(action), envs[1].step(other))
    for task, row in list(zip(tasks, idle, strict=True))[:4]:
        singles = [gym.make(mtenvs.get_family(name).id, task=task, layout=layout) for _ in range(2)]
        for single in singles:
            single.reset(seed=0)
        for _ in range(10):
            action = rng.uniform(-1, 1, len(row))
            other = np.where(row, rng.uniform(-5, 5, len(row)), action)
            (o, *rest), (p, *same) = singles[0].step(action), singles[1].step(other)
            np.testing.assert_array_equal(o, p)
            assert rest == same


@every_layout
def test_actions_that_are_there_do_something(name: str, layout: str | None) -> None:
    """Every one of every body, so that the test above is not about actions that nobody reads."""
    for task in mtenvs.get_family(name).tasks:
        _, idle = lacks(name, [task], layout)
        entries = np.flatnonzero(~idle[0])
        env = TaskVectorEnv(name, num_envs=len(entries) + 1, tasks=[task], layout=layout)
        env.reset(seed=[0] * env.num_envs)
        chosen = np.zeros(env.action_space.shape)
        chosen[np.arange(len(entries)), entries] = 1.0
        observations = env.step(chosen)[0]
        moved = [not np.array_equal(row, observations[-1]) for row in observations[:-1]]
        assert all(moved), (task.name, entries[~np.array(moved)])


@every_pair
def test_layouts_differ_in_nothing_but_places(name: str, one: str, other: str) -> None:
    family = mtenvs.get_family(name)
    for task in family.tasks[:: max(1, len(family.tasks) // 3)]:
        envs = [gym.make(family.id, task=task, layout=each, conditioning="none") for each in (one, other)]
        columns = [env.unwrapped.encoding.columns(task) for env in envs]
        seen = [env.reset(seed=0)[0] for env in envs]
        rng = np.random.default_rng(0)
        for _ in range(10):
            own = [row[column.observation] for row, column in zip(seen, columns, strict=True)]
            np.testing.assert_array_equal(*own)
            chosen = rng.uniform(-1, 1, envs[0].unwrapped.model.nu)
            results = []
            for env, column in zip(envs, columns, strict=True):
                action = np.zeros(env.action_space.shape)
                action[column.action] = chosen
                results.append(env.step(action))
            assert results[0][1:] == results[1][1:]
            seen = [result[0] for result in results]


@every_layout
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP], ids=lambda m: m.name)
def test_any_mixture_is_one_environment(name: str, layout: str | None, mode: AutoresetMode) -> None:
    """Every world equals an environment of its own, to the last bit; naming a task twice is fine."""
    family = mtenvs.get_family(name)
    tasks = [*mixture(name)[:7], family.tasks[0], family.tasks[-1], family.tasks[0]]
    native = gym.make_vec(
        family.id, num_envs=len(tasks), tasks=tasks, layout=layout, autoreset_mode=mode, max_episode_steps=9
    )
    sizes = {len(present_entries(family, task, layout)[1]) for task in tasks}
    assert len(native.unwrapped._groups) == len(sizes) > 1
    sync = SyncVectorEnv(
        [lambda t=t: gym.make(family.id, task=t, layout=layout, max_episode_steps=9) for t in tasks],
        autoreset_mode=mode,
    )
    assert native.single_action_space == sync.single_action_space
    assert native.single_observation_space == sync.single_observation_space
    assert_same(rollout(native, 25), rollout(sync, 25))


@every_layout
def test_an_empty_mixture_is_an_error(name: str, layout: str | None) -> None:
    with pytest.raises(ValueError, match="tasks is empty; give at least one"):
        gym.make_vec(mtenvs.get_family(name).id, num_envs=4, tasks=[], layout=layout)


# ---- learning


class Garbage(TaskVectorEnv):
    """Worlds that answer with garbage where their bodies have nothing, if ``spoil`` is set."""

    spoil = False

    def absent(self) -> np.ndarray:
        return lacks(self.family.name, self.tasks, self.layout)[0]

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        self._rng = np.random.default_rng(0)
        observations, info = super().reset(**kwargs)
        return self._spoilt(observations, np.arange(self.num_envs)), info

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        observations, *rest, info = super().step(actions)
        for world, final in enumerate(info.get("final_obs", ())):
            if final is not None:
                info["final_obs"][world] = self._spoilt(final[None], np.array([world]))[0]
        return self._spoilt(observations, np.arange(self.num_envs)), *rest, info

    def _spoilt(self, observations: np.ndarray, worlds: np.ndarray) -> np.ndarray:
        if not self.spoil:
            return observations
        garbage = self._rng.normal(5.0, 100.0, observations.shape).astype(np.float32)
        return np.where(self.absent()[worlds], garbage, observations)


def make_worlds(
    name: str, runs: Sequence[Sequence[int]], layout: str | None = None, spoil: bool = False, width: int = 4
) -> TaskVectorEnv:
    """Every run has ``width`` worlds, dealt evenly to its tasks; episodes are short, so that they end."""
    tasks = [task for run in runs for task in run for _ in range(width // len(run))]
    kind = type("Worlds", (Garbage,), {"spoil": spoil})
    return kind(name, num_envs=len(tasks), tasks=tasks, layout=layout, max_episode_steps=6)


def state_of(learner: PPO, run: int) -> dict[str, torch.Tensor]:
    """Everything that training has written into a run."""
    found = {name: view[run].detach().clone() for name, view in learner._parameters.views().items()}
    statistics = {"observations": learner._observation_moments, "returns": learner._reward_scale}
    for name, moments in statistics.items():
        found |= {f"{name}.{k}": v.clone() for k, v in moments.tensors(run).items()}
    return found | {"first": learner._adam.first[run].clone(), "second": learner._adam.second[run].clone()}


def assert_equal_runs(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert set(a) == set(b)
    for name in a:
        assert torch.equal(a[name], b[name]), name


def sizes(name: str) -> list[int]:
    """Numbers of a small, a middling and the largest published body."""
    tasks = mtenvs.tasks(name)
    order = sorted(
        range(len(tasks)), key=lambda i: len(present_entries(mtenvs.get_family(name), tasks[i])[1])
    )
    return [order[0], order[len(order) // 2], order[-1]]


@every_layout
def test_what_stands_in_padded_observations_is_never_learned_from(name: str, layout: str | None) -> None:
    small, middle, _ = sizes(name)

    def train(spoil: bool) -> tuple[PPO, TaskVectorEnv]:
        worlds = make_worlds(name, [(small, middle), (middle, small)], layout, spoil)
        learner = PPO(worlds, [1, 2], SMALL)
        learner.train(worlds, 4 * 32)
        return learner, worlds

    (clean, plain), (spoilt, dirty) = train(False), train(True)
    for run in range(2):
        assert_equal_runs(state_of(clean, run), state_of(spoilt, run))
    # the garbage was there, and the trained policy does not see it either
    observations, garbage = plain.reset(seed=0)[0], dirty.reset(seed=0)[0]
    assert not np.array_equal(observations, garbage)
    np.testing.assert_array_equal(clean.act(observations), spoilt.act(garbage))


@every_layout
def test_what_is_drawn_for_padded_actions_is_never_learned_from(
    name: str, layout: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probabilities, entropy and gradients are those of the actions that are there."""
    small, middle, _ = sizes(name)
    randn = torch.randn

    def train(change: float) -> PPO:
        worlds = make_worlds(name, [(small, middle)], layout)
        idle = torch.from_numpy(lacks(name, worlds.tasks, layout)[1])

        def drawn(*size: int, generator: torch.Generator) -> torch.Tensor:
            noise = randn(*size, generator=generator)  # (T, W, nu)
            return torch.where(idle, change * noise + change - 1.0, noise)

        monkeypatch.setattr(torch, "randn", drawn)
        learner = PPO(worlds, [1], SMALL)
        learner.train(worlds, 4 * 32)
        monkeypatch.setattr(torch, "randn", randn)
        return learner

    assert_equal_runs(state_of(train(1.0), 0), state_of(train(7.0), 0))


@every_layout
def test_parameters_of_slots_that_no_task_has_stay_as_they_are(name: str, layout: str | None) -> None:
    """Rows of what is never observed, columns and deviations of what is never acted; all others learn."""
    small, *_ = sizes(name)
    worlds = make_worlds(name, [(small,)], layout)
    learner = PPO(worlds, [3], SMALL)
    before = state_of(learner, 0)
    learner.train(worlds, 4 * 32)
    after = state_of(learner, 0)
    absent, idle = (torch.from_numpy(x[0]) for x in lacks(name, worlds.tasks, layout))
    # masks and codes that are 0 for this task move nothing either
    told = worlds.observation_slices.body.stop
    absent[told:] |= torch.from_numpy(worlds.reset(seed=0)[0][0, told:] == 0.0)
    assert idle.any()
    for part in ("actor", "critic"):
        moved = (after[f"{part}.0.weight"] != before[f"{part}.0.weight"]).any(dim=1)
        assert moved.tolist() == (~absent).tolist(), part
    last = max(name for name in after if name.startswith("actor.") and name.endswith("weight"))
    for head in (last, last.replace("weight", "bias"), "log_std"):
        moved = (after[head] != before[head]).any(dim=0)
        assert moved.tolist() == (~idle).tolist(), head
    counted = after["observations.count"] != before["observations.count"]
    assert (
        counted.tolist()
        == (~torch.from_numpy(lacks(name, worlds.tasks, layout)[0][0]))[: len(counted)].tolist()
    )


@every_layout
def test_gradient_of_the_deviation_by_hand(name: str, layout: str | None) -> None:
    """d/d log std of -c H = -c times the share of the worlds that have the action."""
    small, _, large = sizes(name)
    worlds = make_worlds(name, [(small, large)], layout)
    learner = PPO(worlds, [0], dataclasses.replace(SMALL, ent_coef=0.5))
    learner._enter(worlds)
    inputs, chosen, log_probs, advantages, targets = learner._rollout(worlds)
    # without advantages the policy's loss has no gradient: what is left is the entropy's
    loss = learner._loss(inputs, chosen, log_probs, torch.zeros_like(advantages), targets)
    (gradient,) = torch.autograd.grad(loss.sum(), learner._parameters.flat)
    own = gradient[0, -learner._num_actions :]  # log_std is the last parameter
    _, idle = lacks(name, worlds.tasks, layout)
    torch.testing.assert_close(own, torch.from_numpy(-0.5 * (~idle).mean(axis=0)).float())


@every_layout
def test_log_probabilities_by_hand(name: str, layout: str | None) -> None:
    """Of a diagonal Gaussian over the actions that a body has, as PyTorch computes it."""
    small, _, large = sizes(name)
    worlds = make_worlds(name, [(small, large)], layout)
    learner = PPO(worlds, [0], SMALL)
    learner._enter(worlds)
    first = torch.from_numpy(worlds.reset(seed=5)[0])
    learner._observations = first.numpy()
    inputs, chosen, log_probs, *_ = learner._rollout(worlds)
    means = torch.from_numpy(learner_means(learner, inputs))
    _, idle = lacks(name, worlds.tasks, layout)
    std = learner._parameters.views()["log_std"][0, 0].detach().exp()
    for sample in range(worlds.num_envs * SMALL.num_steps):
        own = torch.from_numpy(~idle[sample % worlds.num_envs])
        normal = torch.distributions.Normal(means[0, sample, own], std[own])
        expected = normal.log_prob(chosen[0, sample, own]).sum()
        torch.testing.assert_close(log_probs[0, sample], expected, rtol=1e-4, atol=1e-4)


def learner_means(learner: PPO, inputs: torch.Tensor) -> np.ndarray:
    parameters, names = learner._parameters.views(), [shape.name for shape in learner._actor.shapes]
    x = inputs[0]
    for i in range(0, len(names), 2):
        x = x @ parameters[names[i]][0] + parameters[names[i + 1]][0]
        if i < len(names) - 2:
            x = torch.tanh(x)
    return x[None].detach().numpy()


@every_layout
def test_a_run_does_not_depend_on_neighbours_of_other_sizes(name: str, layout: str | None) -> None:
    small, middle, large = sizes(name)

    def train(*neighbour: int) -> PPO:
        worlds = make_worlds(name, [(small, middle), neighbour], layout)
        learner = PPO(worlds, [7, 8], SMALL)
        learner.train(worlds, 4 * 32)
        return learner

    first, second, third = train(large, middle), train(small), train(small, middle)
    assert_equal_runs(state_of(first, 0), state_of(second, 0))
    assert_equal_runs(state_of(first, 0), state_of(third, 0))
    assert not torch.equal(state_of(first, 1)["log_std"], state_of(second, 1)["log_std"])


def refused(make: Callable[[], object], *words: str) -> None:
    with pytest.raises(ValueError) as error:
        make()
    assert all(word in str(error.value) for word in words), error.value


@every_pair
def test_layouts_do_not_mix(name: str, one: str, other: str, tmp_path: Any) -> None:
    """A checkpoint, or worlds, of another layout are refused, both named."""
    worlds = {layout: make_worlds(name, [(0, 1)], layout) for layout in (one, other)}
    learner = PPO(worlds[one], [1], SMALL)
    learner.save(0, tmp_path / "ck")
    stranger = PPO(worlds[other], [1], SMALL)
    refused(lambda: stranger.load(0, tmp_path / "ck"), f"layout = {one!r}", repr(other))
    refused(lambda: learner.train(worlds[other], 1), "do not suit", repr(one), repr(other))
    again = PPO(make_worlds(name, [(2,)], one), [2], SMALL)
    again.load(0, tmp_path / "ck")  # bodies of other sizes are no obstacle
    torch.testing.assert_close(again._parameters.flat, learner._parameters.flat, rtol=0, atol=0)
