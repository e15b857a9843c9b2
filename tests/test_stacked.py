"""The stacked pieces against hand-computed values and against their single-run counterparts."""

import math

import numpy as np
import pytest
import torch

from baselines.stacked import (
    RunningMoments,
    Shape,
    StackedAdam,
    StackedParameters,
    clip_gradient,
    mlp,
    mlp_shapes,
)

CPU = torch.device("cpu")


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_forward_equals_a_sequential_network_per_run():
    parameters = StackedParameters(mlp_shapes("net", 3, (5, 4), 2, 0.5), generators(1, 2), CPU)
    views = list(parameters.views().values())
    x = torch.randn(2, 7, 3)
    stacked = mlp(x, views)
    for run in range(2):
        net = torch.nn.Sequential(
            torch.nn.Linear(3, 5),
            torch.nn.Tanh(),
            torch.nn.Linear(5, 4),
            torch.nn.Tanh(),
            torch.nn.Linear(4, 2),
        )
        for i, layer in enumerate((net[0], net[2], net[4])):
            layer.weight.data = views[2 * i][run].T
            layer.bias.data = views[2 * i + 1][run, 0]
        torch.testing.assert_close(stacked[run], net(x[run]))


def test_initialisation_is_orthogonal_with_its_gain_and_the_run_s_own():
    shapes = mlp_shapes("net", 8, (6,), 2, head_gain=0.01)
    parameters = StackedParameters(shapes, generators(1, 2), CPU)
    views = parameters.views()
    assert parameters.count == 8 * 6 + 6 + 6 * 2 + 2
    first, head = views["net.0.weight"][0], views["net.1.weight"][0]
    torch.testing.assert_close(first.T @ first, 2.0 * torch.eye(6))  # gain sqrt(2)
    torch.testing.assert_close(head.T @ head, 1e-4 * torch.eye(2))
    assert not views["net.0.bias"].any()
    assert not torch.equal(views["net.0.weight"][0], views["net.0.weight"][1])
    alone = StackedParameters(shapes, generators(2), CPU)
    torch.testing.assert_close(alone.flat[0], parameters.flat[1], rtol=0, atol=0)


def test_layers_in_one_array_are_each_initialised_on_their_own_with_silent_inputs():
    shape = Shape("w", (3, 6, 4), 2.0, silent=slice(5, 6))
    layers = StackedParameters([shape], generators(3), CPU).views()["w"][0]
    generator = generators(3)[0]  # as if they were drawn one after another
    for layer in layers:
        one = StackedParameters([Shape("w", (6, 4), 2.0)], [generator], CPU).views()["w"][0]
        torch.testing.assert_close(one.T @ one, 4.0 * torch.eye(4))
        assert torch.equal(layer[:5], one[:5])
        assert not layer[5].any()


def test_gradients_of_views_reach_only_their_own_run():
    parameters = StackedParameters(
        [Shape("w", (2, 2), 1.0), Shape("b", (1, 2), 0.0, 3.0)], generators(1, 2), CPU
    )
    views = parameters.views()
    assert (views["b"] == 3.0).all()
    loss = (views["w"][1] * 2.0).sum() + views["b"][1].sum()
    (gradient,) = torch.autograd.grad(loss, parameters.flat)
    assert gradient[0].abs().max() == 0
    assert gradient[1].tolist() == [2.0] * 4 + [1.0] * 2


def test_adam_equals_torch_adam_with_a_rate_per_run():
    flat = torch.randn(2, 6)
    rates = torch.tensor([1e-2, 3e-3])
    singles = [torch.nn.Parameter(flat[r].clone()) for r in range(2)]
    optimisers = [torch.optim.Adam([p], lr=float(rates[r]), eps=1e-5) for r, p in enumerate(singles)]
    ours, adam = flat.clone(), StackedAdam(flat, rates)
    for _ in range(5):
        gradient = torch.randn(2, 6)
        adam.step(ours, gradient, torch.tensor([True, True]))
        for r, optimiser in enumerate(optimisers):
            singles[r].grad = gradient[r].clone()
            optimiser.step()
    for r in range(2):
        torch.testing.assert_close(ours[r], singles[r].data)


def test_adam_first_step_by_hand():
    # m^ = g, v^ = g^2, so the first step is lr * g / (|g| + eps)
    flat = torch.zeros(1, 2)
    StackedAdam(flat, torch.tensor([0.1]), eps=1e-5).step(
        flat, torch.tensor([[2.0, -4.0]]), torch.tensor([True])
    )
    expected = [-0.1 * 2.0 / (2.0 + 1e-5), 0.1 * 4.0 / (4.0 + 1e-5)]
    assert flat[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_an_inactive_run_stands_still_and_costs_the_others_nothing():
    flat = torch.ones(2, 3)
    adam, alone = StackedAdam(flat, torch.tensor([0.1, 0.1])), torch.ones(1, 3)
    single = StackedAdam(alone, torch.tensor([0.1]))
    adam.step(flat, torch.ones(2, 3), torch.tensor([True, True]))
    single.step(alone, torch.ones(1, 3), torch.tensor([True]))
    frozen = flat[0].clone()
    bad = torch.tensor([[math.nan] * 3, [0.5] * 3])
    adam.step(flat, bad, torch.tensor([False, True]))
    single.step(alone, torch.full((1, 3), 0.5), torch.tensor([True]))
    torch.testing.assert_close(flat[0], frozen, rtol=0, atol=0)
    torch.testing.assert_close(flat[1], alone[0], rtol=0, atol=0)


def test_frozen_parameters_and_their_moments_stand_still():
    flat = torch.ones(2, 3)
    frozen = torch.tensor([[True, False, False], [False, False, False]])
    adam, free = StackedAdam(flat, torch.tensor([0.1, 0.1])), torch.ones(2, 3)
    single = StackedAdam(free, torch.tensor([0.1, 0.1]))
    for ours, optimiser in ((flat, adam), (free, single)):
        optimiser.step(ours, torch.ones(2, 3), torch.tensor([True, True]))
    moments = adam.first.clone(), adam.second.clone()
    before = flat.clone()
    adam.step(flat, torch.full((2, 3), 0.5), torch.tensor([True, True]), frozen)
    single.step(free, torch.full((2, 3), 0.5), torch.tensor([True, True]))
    for found, old, moved in zip(
        (flat, adam.first, adam.second),
        (before, *moments),
        (free, single.first, single.second),
        strict=True,
    ):
        torch.testing.assert_close(found, torch.where(frozen, old, moved), rtol=0, atol=0)
        assert (old != moved).all()


def test_clipping_is_per_run():
    gradient = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    clipped = clip_gradient(gradient, 1.0)
    assert clipped[0].tolist() == pytest.approx([0.6, 0.8], rel=1e-5)
    assert clipped[1].tolist() == pytest.approx([0.3, 0.4])


def test_running_moments_equal_those_of_all_the_data():
    rng = np.random.default_rng(0)
    data = torch.from_numpy(rng.normal(5.0, [1.0, 100.0], (2, 300, 2))).float()
    moments = RunningMoments(2, 2, CPU)
    for start, stop in ((0, 10), (10, 11), (11, 300)):
        moments.update(data[:, start:stop])
    var, mean = torch.var_mean(data.double(), dim=1, correction=0)
    # the prior's weight of 1e-4 samples is all that may differ
    torch.testing.assert_close(moments.mean, mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moments.var, var, rtol=1e-4, atol=1e-3)
    other = RunningMoments(2, 2, CPU)
    other.restore(1, moments.tensors(0))
    torch.testing.assert_close(other.mean[1], moments.mean[0])
    assert other.mean[0].tolist() == [0.0, 0.0]
    other.widen(3)
    assert other.mean[1].tolist() == [*moments.mean[0].tolist(), 0.0]
    assert other.var[1].tolist() == [*moments.var[0].tolist(), 1.0]


def test_running_moments_count_only_what_is_present():
    """Every entry as if it had been fed the worlds alone that have it; an entry nobody has stays put."""
    rng = np.random.default_rng(1)
    data = torch.from_numpy(rng.normal(3.0, 2.0, (2, 60, 3))).float()
    present = torch.from_numpy(rng.random((2, 60, 3)) < 0.4).float()
    present[:, :, 2] = 0.0
    whole, poisoned = RunningMoments(2, 3, CPU), RunningMoments(2, 3, CPU)
    garbage = torch.where(present > 0, data, torch.tensor(1e6))
    for start, stop in ((0, 7), (7, 8), (8, 60)):
        whole.update(data[:, start:stop], present[:, start:stop])
        poisoned.update(garbage[:, start:stop], present[:, start:stop])
    for run in range(2):
        for entry in range(2):
            alone = RunningMoments(1, 1, CPU)
            alone.update(data[run, present[run, :, entry] > 0, entry].view(1, -1, 1))
            for name, value in alone.tensors(0).items():
                torch.testing.assert_close(whole.tensors(run)[name][entry], value[0], rtol=1e-4, atol=1e-4)
        untouched = RunningMoments(1, 1, CPU).tensors(0)
        for name, value in untouched.items():
            assert whole.tensors(run)[name][2] == value[0]
        for name in untouched:
            assert torch.equal(whole.tensors(run)[name], poisoned.tensors(run)[name])


def test_running_moments_of_everything_present_are_those_without_a_mask():
    data = torch.randn(2, 30, 4)
    masked, plain = RunningMoments(2, 4, CPU), RunningMoments(2, 4, CPU)
    for part in data.split(10, dim=1):
        masked.update(part, torch.ones_like(part))
        plain.update(part)
    for run in range(2):
        for name, value in plain.tensors(run).items():
            torch.testing.assert_close(masked.tensors(run)[name], value)
