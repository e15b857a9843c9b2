"""PPO on worlds of a device, here on Warp's CPU device: rollouts, bootstrap, independence, checkpoints."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mtenvs
from baselines.device import Player
from baselines.learner import Start
from baselines.ppo import PPO, PPOConfig, generalised_advantages
from mtenvs.device_env import DeviceVectorEnv
from mtenvs.vector_env import TaskVectorEnv, VectorWorlds

SMALL = PPOConfig(num_steps=8, num_minibatches=2, update_epochs=2, hidden=(8, 8))
ROLLOUT = 8 * 4
"""Steps of a run between updates, of 4 worlds."""
CONTROL_STEP = 0.04
"""s, of an arm."""
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}
"""Of parameters after a few updates, where matrices of another size are multiplied by another kernel."""


def layout(runs: int, width: int, tasks: tuple[int, ...]) -> list[int]:
    return [t for _ in range(runs) for t in tasks for _ in range(width // len(tasks))]


def worlds(
    runs: int, width: int = 4, tasks: tuple[int, ...] = (0,), family: Any = "Octopus", **kwargs: Any
) -> DeviceVectorEnv:
    """Arms of two links, which have no contacts and compile fastest."""
    dealt = layout(runs, width, tasks)
    return DeviceVectorEnv(family, len(dealt), "cpu", tasks=dealt, **kwargs)


def c_worlds(runs: int, width: int = 4, tasks: tuple[int, ...] = (0,), **kwargs: Any) -> TaskVectorEnv:
    dealt = layout(runs, width, tasks)
    return TaskVectorEnv("Octopus", len(dealt), tasks=dealt, **kwargs)


def weights(learner: PPO, run: int = 0) -> torch.Tensor:
    return learner._parameters.flat[run].detach().clone()


def trained(seeds: list[int], rollouts: int = 4, config: PPOConfig = SMALL, **kwargs: Any) -> PPO:
    envs = worlds(len(seeds), **kwargs)
    learner = PPO(envs, seeds, config)
    assert learner.train(envs, rollouts * ROLLOUT) == rollouts * ROLLOUT
    return learner


def record(envs: DeviceVectorEnv, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """What every control step was given and brought."""
    steps: list[dict[str, torch.Tensor]] = []
    advance = envs.advance

    def recording(actions: torch.Tensor) -> None:
        before = {"seen": envs.observations.clone(), "actions": actions.clone()}
        advance(actions)
        names = ("observations", "final_observations", "rewards", "terminations", "dones")
        steps.append(before | {name: getattr(envs, name).clone() for name in names})

    monkeypatch.setattr(envs, "advance", recording)
    return steps


# ---- rollouts


def test_a_rollout_is_what_was_done_and_what_came_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    envs = worlds(2, max_episode_steps=5)
    learner = PPO(envs, [1, 2], SMALL)
    learner._enter(envs)
    steps = record(envs, monkeypatch)
    parameters = learner._parameters.views()
    noise = learner._noise()
    assert learner._rollouts is not None
    brought = learner._rollouts.collect(noise)
    assert len(steps) == SMALL.num_steps
    for t, step in enumerate(steps):
        blocks = {name: value.view(2, 4, *value.shape[1:]) for name, value in step.items()}
        assert torch.equal(brought.observed[t], blocks["seen"])
        assert torch.equal(brought.observed[t + 1], blocks["observations"])
        assert torch.equal(brought.finals[t], blocks["final_observations"])
        assert torch.equal(brought.actions[t], blocks["actions"])  # nobody idles
        for name in ("rewards", "terminations", "dones"):
            assert torch.equal(getattr(brought, name)[t], blocks[name])
        means = learner._actor(learner._normalise(blocks["seen"]), parameters)
        torch.testing.assert_close(
            blocks["actions"], means + parameters["log_std"].exp() * noise[t], rtol=1e-5, atol=1e-6
        )
    assert brought.dones.any()
    assert torch.equal(brought.noise, noise)
    # the next rollout is written over this one, with noise of its own
    again = learner._rollouts.collect(learner._noise())
    assert again.observed is brought.observed
    assert not torch.equal(again.noise, noise)
    assert len(steps) == 2 * SMALL.num_steps
    assert torch.equal(steps[8]["seen"], steps[7]["observations"])


def ending(at: float) -> mtenvs.Family:
    """Arms whose targets end the episode at a time, in s, where they are on the right."""

    def terminated(state: Any) -> Any:
        return (state.time > at) & (state.position("target_x") > 0.0)

    return dataclasses.replace(mtenvs.get_family("Octopus"), terminated=terminated)


def test_truncated_episodes_bootstrap_from_their_final_observation(monkeypatch: pytest.MonkeyPatch) -> None:
    """And terminated ones from nothing; by a critic that is worked out by hand."""
    steps = 6
    envs = worlds(1, width=8, family=ending(2.5 * CONTROL_STEP), max_episode_steps=4)
    config = dataclasses.replace(SMALL, num_steps=steps, num_minibatches=1, gamma=0.9, gae_lambda=0.8)
    learner = PPO(envs, [0], config)
    mean, inverse = learner._mean[0].clone(), learner._inverse_std[0].clone()
    parameters = learner._parameters.views()
    critic = [parameters[shape.name][0].detach().clone() for shape in learner._critic.shapes]
    seen: dict[str, torch.Tensor] = {}

    def spy(*args: Any) -> torch.Tensor:
        names = ("rewards", "values", "next_values", "terminations", "dones")
        seen.update(zip(names, args, strict=False))
        seen["advantages"] = generalised_advantages(*args)
        return seen["advantages"]

    def value(observation: torch.Tensor) -> torch.Tensor:
        inputs = ((observation - mean) * inverse).clamp(-10, 10)
        hidden = torch.tanh(inputs @ critic[0] + critic[1])
        return (torch.tanh(hidden @ critic[2] + critic[3]) @ critic[4] + critic[5])[:, 0]

    monkeypatch.setattr("baselines.ppo.generalised_advantages", spy)
    played = record(envs, monkeypatch)
    learner.train(envs, 1)
    assert len(played) == steps
    truncated = terminated = 0
    carried = torch.zeros(8)
    for t in reversed(range(steps)):
        done, ended = played[t]["dones"], played[t]["terminations"]
        now, later = value(played[t]["seen"]), value(played[t]["final_observations"])
        torch.testing.assert_close(seen["values"][t, 0], now)
        torch.testing.assert_close(seen["next_values"][t, 0], later)
        assert torch.equal(seen["dones"][t, 0], done)
        # where an episode goes on, the final observation is simply the next one
        assert torch.equal(played[t]["final_observations"][~done], played[t]["observations"][~done])
        assert (played[t]["final_observations"] != played[t]["observations"]).any(dim=1)[done].all()
        delta = seen["rewards"][t, 0] + 0.9 * later * ~ended - now
        carried = delta + 0.9 * 0.8 * ~done * carried
        torch.testing.assert_close(seen["advantages"][t, 0], carried, rtol=1e-4, atol=1e-5)
        truncated, terminated = truncated + int((done & ~ended).sum()), terminated + int(ended.sum())
    assert truncated >= 2
    assert terminated >= 2


def test_first_episodes_are_staggered_and_training_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    envs = worlds(1, max_episode_steps=10)
    learner = PPO(envs, [0], SMALL)
    reset, resets = envs.reset, []

    def recording(**kwargs: Any) -> Any:
        resets.append(kwargs.get("options") or {})
        return reset(**kwargs)

    monkeypatch.setattr(envs, "reset", recording)
    learner.train(envs, ROLLOUT)
    assert len(torch.unique(envs._steps_in_episode)) > 1
    learner.train(envs, 2 * ROLLOUT)
    learner.evaluate(worlds(1, max_episode_steps=10), [0, 1, 2, 3])  # other worlds are no matter
    learner.train(envs, 3 * ROLLOUT)
    assert ["elapsed_steps" in options for options in resets] == [True]
    learner.evaluate(envs, [0, 1, 2, 3])
    learner.train(envs, 4 * ROLLOUT)  # their training episodes are gone: new ones, staggered again
    assert ["elapsed_steps" in options for options in resets] == [True, False, True]


def test_learners_that_are_gone_leave_nothing_with_the_worlds() -> None:
    envs = worlds(1, max_episode_steps=10)
    learner = PPO(envs, [0], SMALL)
    own = len(envs._steppers)
    for _ in range(3):
        learner.train(envs, learner.steps + 1)
        learner.evaluate(envs, [0, 1, 2, 3])
    gc.collect()
    assert len(envs._steppers) == own + 2  # of the rollouts and of the player
    del learner
    gc.collect()
    assert len(envs._steppers) == own


# ---- runs beside each other


def test_a_run_does_not_depend_on_its_neighbours() -> None:
    first, second = trained([7, 1, 2]), trained([7, 3, 4])
    torch.testing.assert_close(weights(first), weights(second), rtol=0, atol=0)
    assert not torch.equal(weights(first, 1), weights(second, 1))
    torch.testing.assert_close(weights(first), weights(trained([5, 6, 7]), 2), **ROUNDING)
    alone = trained([7])
    torch.testing.assert_close(weights(first), weights(alone), **ROUNDING)
    assert not torch.equal(weights(alone), PPO(worlds(1), [7], SMALL)._initial[0])
    torch.testing.assert_close(weights(alone), weights(trained([7])), rtol=0, atol=0)


def test_noise_and_shuffles_are_a_runs_own() -> None:
    envs = worlds(2)
    learner, other = PPO(envs, [1, 2], SMALL), PPO(envs, [3, 1], SMALL)
    learner._enter(envs)
    other._enter(envs)
    noises = [learner._noise() for _ in range(2)]
    assert noises[0].shape == (8, 2, 4, envs.num_actions)
    assert torch.equal(other._noise()[:, 1], noises[0][:, 0])
    assert len(torch.unique(torch.stack(noises))) > 0.999 * 2 * noises[0].numel()
    orders = []
    for epoch in range(3):
        learner.updates = other.updates = epoch * SMALL.num_minibatches
        order = learner._order(ROLLOUT)
        assert torch.equal(order.sort(dim=1).values, torch.arange(ROLLOUT).expand(2, -1))
        assert torch.equal(other._order(ROLLOUT)[1], order[0])
        orders.append(order)
    assert len(torch.unique(torch.cat(orders), dim=0)) == 6


def test_advantages_are_normalised_per_run_and_task_as_on_the_cpu() -> None:
    """In runs whose tasks have unequal numbers of worlds."""
    dealt = [0, 0, 0, 1, 0, 1, 1, 1]
    envs = DeviceVectorEnv("Biped", 8, "cpu", tasks=dealt)
    learner = PPO(envs, [0, 1], SMALL)
    learner._enter(envs)
    scales = torch.tensor([[1.0, 1.0, 1.0, 100.0], [3.0, 0.1, 0.1, 0.1]])
    advantages = torch.randn(50, 2, 4, generator=torch.Generator().manual_seed(0)) * scales + 7.0
    found = learner._normalise_advantages(advantages)
    same = PPO(envs, [0, 1], SMALL)
    same._enter(TaskVectorEnv("Biped", 8, tasks=dealt))
    torch.testing.assert_close(found, same._normalise_advantages(advantages), rtol=1e-4, atol=1e-4)
    for run, task in ((0, [0, 1, 2]), (0, [3]), (1, [0]), (1, [1, 2, 3])):
        part = found[:, run, task]
        assert part.mean().item() == pytest.approx(0.0, abs=1e-4)
        assert part.std().item() == pytest.approx(1.0, rel=1e-3)


def test_a_run_of_fewer_tasks_than_its_neighbours_has_advantages_too() -> None:
    envs = DeviceVectorEnv("Biped", 4, "cpu", tasks=[0, 0, 0, 1])
    learner = PPO(envs, [0, 1], SMALL)
    learner._enter(envs)
    found = learner._normalise_advantages(torch.arange(40.0).view(10, 2, 2))
    assert torch.isfinite(found).all()
    assert found[:, 0].std().item() == pytest.approx(1.0, rel=1e-3)


def test_a_diverged_run_idles_and_costs_its_neighbours_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(poison: bool) -> tuple[PPO, list[dict[str, torch.Tensor]]]:
        envs = worlds(2)
        learner = PPO(envs, [1, 2], SMALL)
        learner.train(envs, ROLLOUT)
        if poison:
            with torch.no_grad():
                learner._parameters.flat[1] = float("nan")
        played = record(envs, monkeypatch)
        learner.train(envs, 3 * ROLLOUT)
        return learner, played

    (poisoned, idle), (healthy, _) = train(True), train(False)
    assert poisoned.diverged().tolist() == [False, True]
    assert healthy.diverged().tolist() == [False, False]
    torch.testing.assert_close(weights(poisoned), weights(healthy), rtol=0, atol=0)
    assert all((step["actions"][4:] == 0.0).all() for step in idle)
    assert all((step["actions"][:4] != 0.0).any() for step in idle)
    played = poisoned.evaluate(worlds(2, max_episode_steps=5), list(range(8)))
    assert np.isfinite(played.returns).all()


def test_what_is_injected_into_runs_costs_their_neighbour_nothing() -> None:
    """Parameters that are finite may give actions that are not: they stop the run, not the cohort."""

    def train(poison: bool) -> PPO:
        envs = worlds(4)
        learner = PPO(envs, [1, 2, 3, 4], SMALL)
        learner.train(envs, ROLLOUT)
        if poison:
            with torch.no_grad():
                learner._parameters.views()["log_std"][1] = 1000.0
            learner._adam.second[2, 0] = float("inf")
            learner._observation_moments.mean[3] = float("nan")
            learner._set_scale()
        learner.train(envs, 3 * ROLLOUT)
        return learner

    poisoned, healthy = train(True), train(False)
    assert poisoned.diverged().tolist() == [False, True, True, True]
    assert not healthy.diverged().any()
    torch.testing.assert_close(weights(poisoned), weights(healthy), rtol=0, atol=0)


def test_a_run_whose_loss_is_no_number_keeps_its_last_good_parameters() -> None:
    envs = worlds(2)
    learner = PPO(envs, [1, 2], SMALL)
    learner.train(envs, ROLLOUT)
    before = weights(learner, 1)
    batch = learner._rollout(envs)
    batch[3][1, 0] = float("inf")  # an advantage
    learner._update(*batch)
    assert learner.diverged().tolist() == [False, True]
    assert torch.isfinite(weights(learner, 1)).all()
    # of two minibatches, at most the one before it was learned from
    assert (weights(learner, 1) - before).abs().max() < 10 * SMALL.learning_rate


# ---- evaluation


@pytest.mark.parametrize("tasks", [pytest.param((0,), marks=pytest.mark.slow), (0, 1)])
def test_an_evaluation_is_the_cpus(tasks: tuple[int, ...]) -> None:
    """Of the same networks from the same seeds, arms of one length and of two."""
    learner = PPO(worlds(2, tasks=tasks), [1, 2], SMALL)
    with torch.no_grad():  # a policy that does something
        for name, view in learner._parameters.views().items():
            if name == "actor.2.weight":
                view *= 50.0
    seeds = list(range(8))
    ours = learner.evaluate(worlds(2, tasks=tasks), seeds)
    theirs = learner.evaluate(c_worlds(2, tasks=tasks), seeds)
    np.testing.assert_allclose(ours.returns, theirs.returns, rtol=2e-3)
    np.testing.assert_array_equal(ours.lengths, theirs.lengths)
    np.testing.assert_array_equal(ours.success, theirs.success)
    assert np.std(theirs.returns) > 0.1 * np.mean(theirs.returns)  # they do differ
    assert (theirs.lengths == 150).all()


def test_an_evaluation_is_of_one_whole_episode_of_every_world() -> None:
    """Of unequal length, however many there were in the meantime; and a second one begins anew."""
    family = ending(5.5 * CONTROL_STEP)
    envs = worlds(1, width=6, family=family, max_episode_steps=60)
    twin = TaskVectorEnv(family, 6, tasks=[0], max_episode_steps=60)  # type: ignore[arg-type]
    learner = PPO(envs, [3], SMALL)
    seeds = [4, 5, 6, 7, 8, 9]
    theirs = learner.evaluate(twin, seeds)
    assert sorted(set(theirs.lengths)) == [6, 60]
    for _ in range(2):
        ours = learner.evaluate(envs, seeds)
        np.testing.assert_array_equal(ours.lengths, theirs.lengths)
        np.testing.assert_allclose(ours.returns, theirs.returns, rtol=2e-3)
        assert ours.returns.dtype == theirs.returns.dtype
        assert ours.success.dtype == theirs.success.dtype
    assert not np.allclose(
        learner.evaluate(envs, [s + 50 for s in seeds]).returns, theirs.returns, rtol=2e-3
    )


def test_evaluations_share_a_player(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was captured for some worlds is used again."""
    made = []
    begin = Player.__init__
    monkeypatch.setattr(Player, "__init__", lambda self, *a: made.append(a) or begin(self, *a))
    envs = worlds(1, max_episode_steps=3)
    learner = PPO(envs, [0], SMALL)
    for _ in range(3):
        learner.evaluate(envs, [0, 1, 2, 3])
    assert len(made) == 1


# ---- checkpoints


def test_checkpoints_pass_between_backends(tmp_path: Path) -> None:
    """What was saved acts alike in worlds of either, and learns on in both."""
    envs = worlds(2)
    learner = PPO(envs, [1, 2], SMALL)
    learner.train(envs, 2 * ROLLOUT)
    learner.save(1, tmp_path / "one")
    observations = (
        np.random.default_rng(0).normal(size=(4, envs.observation_slices.size)).astype(np.float32)
    )
    expected = learner.act(np.tile(observations, (2, 1)))[4:]
    goers: list[VectorWorlds] = [worlds(1), c_worlds(1)]
    for goer in goers:
        heir = PPO(goer, [9], SMALL)  # type: ignore[arg-type]
        heir.load(0, tmp_path / "one")
        torch.testing.assert_close(weights(heir), weights(learner, 1), rtol=0, atol=0)
        np.testing.assert_allclose(heir.act(observations), expected, rtol=1e-5, atol=1e-6)
        heir.train(goer, ROLLOUT)
        assert not torch.equal(weights(heir), weights(learner, 1))
        assert not heir.diverged().any()


def test_a_loaded_run_learns_in_worlds_that_were_trained_in(tmp_path: Path) -> None:
    """What steps and updates were captured with is set in place or captured anew."""
    donor = trained([5])
    donor.save(0, tmp_path / "donor")
    envs = worlds(1, max_episode_steps=20)
    used = PPO(envs, [3], SMALL)
    used.train(envs, ROLLOUT)
    used.load(0, tmp_path / "donor", Start(keep_optimizer=True))
    for name in ("_mean", "_inverse_std"):
        torch.testing.assert_close(getattr(used, name), getattr(donor, name), rtol=0, atol=0)
    torch.testing.assert_close(weights(used), weights(donor), rtol=0, atol=0)
    seeds = [0, 1, 2, 3]
    np.testing.assert_allclose(
        used.evaluate(envs, seeds).returns,
        donor.evaluate(worlds(1, max_episode_steps=20), seeds).returns,
        rtol=1e-6,
    )
    used.train(envs, 3 * ROLLOUT)
    assert not used.diverged().any()


def test_a_frozen_trunk_stands_still(tmp_path: Path) -> None:
    trained([5]).save(0, tmp_path / "source")
    envs = worlds(2)
    learner = PPO(envs, [1, 2], SMALL)
    learner.train(envs, ROLLOUT)  # without anything frozen
    for run, start in enumerate((Start(freeze_trunk=True), Start())):
        learner.load(run, tmp_path / "source", start)
    before = {name: view.detach().clone() for name, view in learner._parameters.views().items()}
    learner.train(envs, 3 * ROLLOUT)
    trunk = learner._actor.trunk | learner._critic.trunk
    assert trunk
    for name, view in learner._parameters.views().items():
        moved = [not torch.equal(view[run], before[name][run]) for run in range(2)]
        assert moved == [name not in trunk, True], name


# ---- bad input


def test_a_learner_and_its_worlds_share_a_device() -> None:
    envs = worlds(1)
    learner = PPO(envs, [0], SMALL)
    learner.device = torch.device("cuda", 0)
    with pytest.raises(ValueError, match="worlds on cpu do not suit a learner on cuda:0"):
        learner.train(envs, 1)


def test_worlds_must_suit_the_learner() -> None:
    learner = PPO(worlds(1), [0, 1], SMALL)
    with pytest.raises(ValueError, match="conditioning"):
        learner.train(worlds(2, conditioning="one_hot"), 1)
    uneven = PPO(worlds(1), [0], dataclasses.replace(SMALL, num_minibatches=7))
    with pytest.raises(ValueError, match="num_minibatches=7"):
        uneven.train(worlds(1), 1)


# ---- learning


def test_smoke_of_learning() -> None:
    """Nearer to the target after 8k steps; that curves are those of the C backend is a benchmark's."""
    envs, judged = worlds(1, width=32), c_worlds(1, width=32)
    learner = PPO(envs, [1])
    seeds = list(range(32))
    before = learner.evaluate(judged, seeds).returns.mean()
    learner.train(envs, 8_000)
    after = learner.evaluate(judged, seeds).returns.mean()
    assert after > before + 5.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card")
def test_a_card_trains_the_run_that_the_cpu_trains() -> None:
    """From the same seeds, by the same noise and shuffles: two updates, up to rounding that has grown."""
    found = {}
    for device in ("cpu", "cuda"):
        envs = DeviceVectorEnv("Octopus", 8, device, tasks=[0], max_episode_steps=20)
        learner = PPO(envs, [1, 2], SMALL, device=device)  # type: ignore[arg-type]
        learner.train(envs, 2 * ROLLOUT)
        played = learner.evaluate(envs, list(range(8)))
        learner.train(envs, 8 * ROLLOUT)  # after an evaluation in the same worlds, all from graphs
        assert not learner.diverged().any()
        found[device] = played.returns
    np.testing.assert_allclose(found["cuda"], found["cpu"], rtol=0.02)
