"""PPO: the advantage by hand, the bootstrap, independence of runs, checkpoints, and that it learns."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from helpers import rewrite_facts

from baselines.architectures import ARCHITECTURES
from baselines.checkpoint import FACTS, TENSORS, load_checkpoint, save_checkpoint
from baselines.learner import Learner, Start, play_episodes
from baselines.ppo import PPO, PPOConfig, generalised_advantages
from baselines.registry import describe_learner, make_learner
from baselines.reward_scale import RewardScale
from mtenvs.vector_env import TaskVectorEnv

SMALL = PPOConfig(num_steps=8, num_minibatches=2, update_epochs=2, hidden=(8, 8))


def worlds(runs: int, width: int = 4, tasks=(0, 1), **kwargs) -> TaskVectorEnv:
    layout = [t for _ in range(runs) for t in tasks for _ in range(width // len(tasks))]
    return TaskVectorEnv("Biped", num_envs=len(layout), tasks=layout, **kwargs)


def weights(learner: PPO, run: int) -> torch.Tensor:
    return learner._parameters.flat[run].detach().clone()


def test_advantages_by_hand():
    # three steps: an ordinary one, one that is truncated (bootstraps, then the sum is cut), one terminated
    rewards = torch.tensor([1.0, 2.0, 3.0])
    values = torch.tensor([10.0, 20.0, 30.0])
    next_values = torch.tensor([20.0, 40.0, 50.0])
    terminations = torch.tensor([False, False, True])
    dones = torch.tensor([False, True, True])
    advantages = generalised_advantages(rewards, values, next_values, terminations, dones, 0.5, 0.8)
    third = 3.0 - 30.0  # terminated: the future is worth nothing
    second = (
        2.0 + 0.5 * 40.0 - 20.0
    )  # truncated: the final observation's value counts, the next episode not
    first = 1.0 + 0.5 * 20.0 - 10.0 + 0.5 * 0.8 * second
    assert advantages.tolist() == pytest.approx([first, second, third])


def test_truncation_bootstraps_from_the_final_observation(monkeypatch):
    limit, steps = 3, 5
    envs = worlds(1, max_episode_steps=limit)
    learner = PPO(envs, [0], dataclasses.replace(SMALL, num_steps=steps, num_minibatches=1))
    seen, finals = {}, []

    def spy(rewards, values, next_values, terminations, dones, gamma, gae_lambda):
        seen.update(values=values, next_values=next_values, terminations=terminations, dones=dones)
        return generalised_advantages(rewards, values, next_values, terminations, dones, gamma, gae_lambda)

    def recording(actions):
        result = step(actions)
        finals.append(result[4].get("final_obs"))
        return result

    step = envs.step
    monkeypatch.setattr("baselines.ppo.generalised_advantages", spy)
    monkeypatch.setattr(envs, "step", recording)
    mean, inverse = learner._mean[0].clone(), learner._inverse_std[0].clone()
    parameters = learner._parameters.views()
    critic = [parameters[shape.name][0].detach().clone() for shape in learner._critic.shapes]

    def value(observation):
        inputs = ((torch.from_numpy(observation)[None] - mean) * inverse).clamp(-10, 10)
        hidden = torch.tanh(inputs @ critic[0] + critic[1])
        return (torch.tanh(hidden @ critic[2] + critic[3]) @ critic[4] + critic[5]).squeeze()

    learner.train(envs, 1)
    dones = seen["dones"][:, 0]
    assert not seen["terminations"].any()  # nobody falls so soon
    firsts = set()
    for world in range(envs.num_envs):
        first = int(dones[:, world].nonzero()[0])
        firsts.add(first)
        # episodes begin within their limit, and every later one lasts as long as the limit says
        assert first < limit
        assert dones[:, world].nonzero().flatten().tolist() == list(range(first, steps, limit))
    assert len(firsts) > 1  # the worlds do not all end at once
    for t in range(steps):
        for world in range(envs.num_envs):
            found = seen["next_values"][t, 0, world]
            if dones[t, world]:
                torch.testing.assert_close(found, value(finals[t][world]))
            elif t + 1 < steps:  # elsewhere it is simply the value of the next observation
                torch.testing.assert_close(found, seen["values"][t + 1, 0, world])
            if dones[t, world] and t + 1 < steps:
                assert found != seen["values"][t + 1, 0, world]  # the next episode's


def test_training_goes_on_where_it_was_but_for_an_evaluation_between(monkeypatch):
    envs = worlds(1)
    learner = PPO(envs, [0], SMALL)
    reset, resets = envs.reset, []

    def recording(**kwargs):
        resets.append(kwargs.get("options") or {})
        return reset(**kwargs)

    monkeypatch.setattr(envs, "reset", recording)
    learner.train(envs, 32)
    learner.train(envs, 64)
    learner.evaluate(worlds(1), [0, 1, 2, 3])  # other worlds are no matter
    learner.train(envs, 96)
    assert ["elapsed_steps" in options for options in resets] == [True]
    learner.evaluate(envs, [0, 1, 2, 3])
    learner.train(envs, 128)  # their training episodes are gone: new ones, staggered again
    assert ["elapsed_steps" in options for options in resets] == [True, False, True]
    learner.train(envs, 160)
    assert len(resets) == 3


def test_a_run_does_not_depend_on_its_neighbours():
    def train(seeds):
        envs = worlds(len(seeds))
        learner = PPO(envs, seeds, SMALL)
        learner.train(envs, 4 * 32)
        return learner

    first, second = train([7, 1, 2]), train([7, 3, 4])
    torch.testing.assert_close(weights(first, 0), weights(second, 0), rtol=0, atol=0)
    assert not torch.equal(weights(first, 1), weights(second, 1))
    moved = train([5, 6, 7])
    torch.testing.assert_close(weights(first, 0), weights(moved, 2), rtol=1e-4, atol=1e-5)
    # alone, matrices are multiplied by another kernel: equal up to rounding
    torch.testing.assert_close(weights(first, 0), weights(train([7]), 0), rtol=1e-4, atol=1e-5)


def test_same_seed_same_run_and_zero_is_a_seed():
    def train(seed):
        envs = worlds(1)
        learner = PPO(envs, [seed], SMALL)
        assert learner.train(envs, 64) == 64
        return weights(learner, 0)

    torch.testing.assert_close(train(0), train(0), rtol=0, atol=0)
    assert not torch.equal(train(0), train(1))


def test_the_default_network_and_what_a_seed_means_stay_what_they_were():
    """Frozen plans are made again from seeds: names, shapes and order of drawing are fixed."""
    envs = worlds(1)
    learner = PPO(envs, [5], SMALL)
    size, code = envs.observation_slices.size, envs.observation_slices.code
    generator = torch.Generator()
    stream = np.random.SeedSequence(5).spawn(5)[0]
    generator.manual_seed(int(stream.generate_state(1, np.uint64)[0]) % 2**63)
    expected = {}
    for net, outputs, head_gain in (("actor", 6, 0.01), ("critic", 1, 1.0)):
        for i, (inputs, units) in enumerate(((size, 8), (8, 8), (8, outputs))):
            weight = torch.empty(units, inputs)
            gain = head_gain if i == 2 else math.sqrt(2.0)
            torch.nn.init.orthogonal_(weight, gain, generator=generator)
            expected[f"{net}.{i}.weight"], expected[f"{net}.{i}.bias"] = weight.T, torch.zeros(1, units)
        expected[f"{net}.0.weight"][code] = 0.0
    expected["log_std"] = torch.full((1, 6), -0.5)
    found = learner._parameters.views()
    assert list(found) == list(expected)
    for name, values in expected.items():
        torch.testing.assert_close(found[name][0].detach(), values, rtol=0, atol=0)


def test_a_diverged_run_costs_only_itself():
    def train(poison):
        envs = worlds(2)
        learner = PPO(envs, [1, 2], SMALL)
        learner.train(envs, 32)
        if poison:
            with torch.no_grad():
                learner._parameters.flat[1] = float("nan")
        learner.train(envs, 96)
        return learner

    poisoned, healthy = train(True), train(False)
    assert poisoned.diverged().tolist() == [False, True]
    assert healthy.diverged().tolist() == [False, False]
    torch.testing.assert_close(weights(poisoned, 0), weights(healthy, 0), rtol=0, atol=0)


def test_codes_pass_unnormalised_and_start_at_zero_weight():
    envs = worlds(1)
    learner = PPO(envs, [0], SMALL)
    code = envs.observation_slices.code
    for name in ("actor.0.weight", "critic.0.weight"):
        view = learner._parameters.views()[name][0]
        assert not view[code].any()
        assert view[envs.observation_slices.body].abs().min() > 0
    learner.train(envs, 96)
    assert learner._parameters.views()["actor.0.weight"][0, code].any()
    observations, _ = envs.reset(seed=0)
    inputs = learner._normalise(torch.from_numpy(observations)[None])
    np.testing.assert_array_equal(inputs[0, :, code], observations[:, code])
    assert learner._observation_moments.mean.shape[1] == envs.observation_slices.body.stop


def test_advantages_are_normalised_per_task():
    envs = worlds(2)
    learner = PPO(envs, [0, 1], SMALL)
    learner._enter(envs)
    advantages = torch.randn(50, 2, 4) * torch.tensor([1.0, 1.0, 100.0, 100.0]) + 7.0
    normal = learner._normalise_advantages(advantages)
    for run in range(2):
        for task in (slice(0, 2), slice(2, 4)):
            part = normal[:, run, task]
            assert part.mean().item() == pytest.approx(0.0, abs=1e-5)
            assert part.std().item() == pytest.approx(1.0, rel=1e-4)


def test_reward_scale_is_the_deviation_of_discounted_returns():
    scale = RewardScale(1, 0.9, "run", torch.device("cpu"))
    scale.enter([["a", "a", "b", "b"]])
    rewards = torch.ones(3, 1, 4, dtype=torch.float64)
    dones = torch.zeros(3, 1, 4, dtype=torch.bool)
    dones[1, 0, 0] = True  # the return starts again after an episode's end
    scaled = scale(rewards, dones)
    returns = [1.0, 1.9, 2.71] * 3 + [1.0, 1.9, 1.0]
    assert scaled[0, 0, 0].item() == pytest.approx(1.0 / np.std(returns), rel=1e-3)
    assert (scaled == scaled[0, 0, 0]).all()
    assert scale.facts(0) == {}


def test_reward_scale_of_each_task_by_hand():
    scale = RewardScale(2, 0.9, "task", torch.device("cpu"))
    scale.enter([["a", "b", "b"], ["b", "c", "c"]])
    rewards = torch.tensor([[[1.0, 10.0, 20.0], [3.0, 4.0, 5.0]]] * 2, dtype=torch.float64)
    scaled = scale(rewards, torch.zeros(2, 2, 3, dtype=torch.bool))
    returns = {
        (0, "a"): [1.0, 1.9],
        (0, "b"): [10.0, 19.0, 20.0, 38.0],
        (1, "b"): [3.0, 5.7],
        (1, "c"): [4.0, 7.6, 5.0, 9.5],
    }
    for run, tasks in enumerate(("abb", "bcc")):
        for world, task in enumerate(tasks):
            expected = rewards[0, run, world].item() / np.std(returns[run, task])
            assert scaled[0, run, world].item() == pytest.approx(min(expected, 10.0), rel=1e-3)
    # the moments go on where a task is trained again, and a new one starts afresh
    before = scale.tensors(0)
    scale.enter([["c", "b"], ["b", "b"]])
    assert scale.facts(0) == {"return_tasks": ["a", "b", "c"]}
    after = scale.tensors(0)
    for name, fresh in (("mean", 0.0), ("var", 1.0), ("count", 1e-4)):
        assert after[name].tolist() == [*before[name].tolist(), fresh]
    one = scale(torch.full((1, 2, 2), 2.0, dtype=torch.float64), torch.zeros(1, 2, 2, dtype=torch.bool))
    weighted = np.std([*returns[0, "b"], 2.0])
    assert one[0, 0, 1].item() == pytest.approx(2.0 / weighted, rel=1e-3)


def test_scales_of_tasks_are_kept_in_checkpoints_by_name(tmp_path):
    config = dataclasses.replace(SMALL, return_scale="task")
    envs = worlds(2, tasks=(0, 1))
    learner = PPO(envs, [1, 2], config)
    learner.train(envs, 64)
    learner.save(1, tmp_path / "ck")
    names = [f"Biped/{task.name}" for task in (envs.tasks[0], envs.tasks[2])]
    assert json.loads((tmp_path / "ck" / FACTS).read_text())["return_tasks"] == names
    saved = learner._reward_scale.tensors(1)
    assert (saved["count"] > 1).all()
    other = PPO(again := worlds(1, tasks=(2, 1)), [9], config)
    other.load(0, tmp_path / "ck")
    other._enter(again)
    third = f"Biped/{again.tasks[0].name}"
    assert other._reward_scale.facts(0)["return_tasks"] == [*names, third]
    found = other._reward_scale.tensors(0)
    assert found["var"].tolist() == [*saved["var"].tolist(), 1.0]
    with pytest.raises(ValueError, match="has return_scale = 'task', this learner needs 'run'"):
        PPO(again, [9], SMALL).load(0, tmp_path / "ck")
    rewrite_facts(tmp_path / "ck", return_tasks=names[:1])
    with pytest.raises(ValueError, match="is damaged: its scale of returns is not of the tasks"):
        other.load(0, tmp_path / "ck")


def test_checkpoint_round_trip_and_fresh_optimiser(tmp_path):
    envs = worlds(2)
    learner = PPO(envs, [1, 2], SMALL)
    learner.train(envs, 64)
    learner.save(1, tmp_path / "ck")
    other = PPO(worlds(1), [9], SMALL)
    other.load(0, tmp_path / "ck")
    torch.testing.assert_close(weights(other, 0), weights(learner, 1), rtol=0, atol=0)
    torch.testing.assert_close(other._mean[0], learner._mean[1], rtol=0, atol=0)
    found, saved = (each._reward_scale.moments.var for each in (other, learner))
    torch.testing.assert_close(found[0], saved[1], rtol=0, atol=0)
    assert not other._adam.first.any()
    other.load(0, tmp_path / "ck", Start(keep_optimizer=True))
    torch.testing.assert_close(other._adam.first[0], learner._adam.first[1])
    assert other._adam.clock[0] == learner._adam.clock[1]


def test_a_checkpoint_of_another_kind_is_refused_by_name(tmp_path):
    learner = PPO(worlds(1), [1], SMALL)
    learner.save(0, tmp_path / "ck")
    with pytest.raises(ValueError, match=r"hidden = \[8, 8\].*\[16\]"):
        PPO(worlds(1), [1], dataclasses.replace(SMALL, hidden=(16,))).load(0, tmp_path / "ck")
    with pytest.raises(ValueError, match=r"conditioning = 'descriptor'.*'none'"):
        PPO(worlds(1, conditioning="none"), [1], SMALL).load(0, tmp_path / "ck")
    tensors, facts = load_checkpoint(tmp_path / "ck", {})
    tensors["parameters.log_std"] = torch.zeros(1, 1)  # would be broadcast
    save_checkpoint(tmp_path / "other", tensors, facts)
    with pytest.raises(ValueError, match=r"damaged: parameters.log_std has shape \(1, 1\).*\(1, 6\)"):
        learner.load(0, tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        learner.load(0, tmp_path / "nothing")
    (tmp_path / "ck" / FACTS).write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        learner.load(0, tmp_path / "ck")


def test_checkpoints_are_safetensors_and_json(tmp_path):
    save_checkpoint(tmp_path, {"w": torch.ones(2)}, {"a": 1})
    facts = json.loads((tmp_path / FACTS).read_text())
    assert {name: facts[name] for name in facts if name != "sha256"} == {"format": 1, "a": 1}
    tensors, _facts = load_checkpoint(tmp_path, {"a": 1})
    assert tensors["w"].tolist() == [1.0, 1.0]
    (tmp_path / TENSORS).write_bytes(b"cos\nsystem\n(S'true'\ntR.")  # a pickle, to a loader that has none
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(tmp_path, {"a": 1})


def test_worlds_that_do_not_suit_are_refused():
    learner = PPO(worlds(2), [1, 2], SMALL)
    with pytest.raises(ValueError, match="do not suit 2 runs"):
        learner.train(TaskVectorEnv("Biped", num_envs=3, tasks=[0]), 1)
    envs = worlds(1)
    uneven = PPO(envs, [1], dataclasses.replace(SMALL, num_minibatches=7))
    with pytest.raises(ValueError, match="num_minibatches=7"):
        uneven.train(envs, 1)


def test_ppo_is_a_learner_and_the_registry_knows_it():
    envs = worlds(1)
    assert isinstance(PPO(envs, [0], SMALL), Learner)
    description = describe_learner("ppo", "Biped")
    learner = make_learner("ppo", description.config, envs, [0])
    assert learner.describe()["parameters"] > 0
    with pytest.raises(ValueError, match=r"unknown agent 'pp' \(did you mean 'ppo'\?\)"):
        describe_learner("pp", "Biped")
    with pytest.raises(ValueError, match=r"unknown hyperparameters \['gama'\].*gamma"):
        make_learner("ppo", {"gama": 1}, envs, [0])


def test_played_episodes_are_whole_and_the_first_of_each_world():
    envs = worlds(1, width=4)
    played = play_episodes(lambda o: np.zeros((4, 6), np.float32), envs, [5, 6, 5, 6])
    single = TaskVectorEnv("Biped", num_envs=1, tasks=[0])
    single.reset(seed=5)
    total, length = 0.0, 0
    while True:
        _, reward, terminated, truncated, _ = single.step(np.zeros((1, 6)))
        total, length = total + reward[0], length + 1
        if terminated[0] or truncated[0]:
            break
    assert played.returns[0] == pytest.approx(total)
    assert played.lengths[0] == length


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_trains_on_cuda(architecture, tmp_path):
    envs = worlds(2, conditioning="one_hot")
    config = dataclasses.replace(SMALL, architecture=architecture, return_scale="task")
    learner = PPO(envs, [1, 2], config, device="cuda")
    learner.train(envs, 64)
    learner.save(0, tmp_path / "ck")
    learner.load(1, tmp_path / "ck", Start(freeze_trunk=True, fresh_critic=True, keep_optimizer=True))
    learner.load(0, tmp_path / "ck", Start(part="shuffled"))
    learner.train(envs, 128)
    assert not learner.diverged().any()


def test_smoke_of_learning():
    """More than random after 40k steps; that it *walks* is the slow test's."""
    envs = worlds(2, width=28, tasks=(5,))
    learner = PPO(envs, [1, 2])
    test = worlds(2, width=8, tasks=(5,))
    before = learner.evaluate(test, list(range(16))).returns.mean()
    learner.train(envs, 40_000)
    after = learner.evaluate(test, list(range(16))).returns.mean()
    assert after > before + 10.0


@pytest.mark.slow
def test_learns_to_walk():
    envs = worlds(2, width=56, tasks=(0,))
    learner = PPO(envs, [1, 2])
    learner.train(envs, 600_000)
    played = learner.evaluate(worlds(2, width=16, tasks=(0,)), list(range(32)))
    assert played.returns.mean() > 400.0
    assert played.success.mean() > 0.9
