"""Makes the vector environment of a backend; what ``gymnasium.make_vec`` calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import mujoco

from mtenvs.spec import Family, MissingPackageError, did_you_mean
from mtenvs.vector_env import TaskVectorEnv, VectorWorlds

BACKENDS = ("batch", "warp")
"""What steps worlds: MuJoCo on the cores of the CPU, or MuJoCo Warp on a GPU."""


def make_vector_env(
    family: str | Sequence[str],
    num_envs: int = 1,
    *,
    backend: str = "batch",
    device: Any = None,
    **options: Any,
) -> VectorWorlds:
    """Makes the vector environment of a backend.

    Args:
        family: name of the family, or ``"AllFamilies"``, or the names of several.
        num_envs: number of worlds.
        backend: ``"batch"`` for :class:`TaskVectorEnv`, whose arrays are NumPy's, or ``"warp"`` for
            :class:`mtenvs.device_env.DeviceVectorEnv`, whose arrays are PyTorch's, on a device.
        device: where the worlds of ``"warp"`` live, ``"cuda"`` if left out, or ``"cpu"``.
        options: further arguments of that class.

    Raises:
        ValueError: for an unknown backend, or a device for ``"batch"``.
        mtenvs.spec.MissingPackageError: where ``mtenvs[gpu]`` is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(
            f"unknown backend {backend!r}{did_you_mean(backend, BACKENDS)}; valid: {', '.join(BACKENDS)}"
        )
    if backend == "batch":
        if device is not None:
            raise ValueError(f"device={device!r} is for backend='warp'; backend='batch' runs on the CPU")
        return TaskVectorEnv(family, num_envs, **options)
    with _needing_warp():
        from mtenvs.device_env import DeviceVectorEnv
    return DeviceVectorEnv(family, num_envs, device=device or "cuda", **options)


def check_warp(device: Any) -> None:
    """Makes sure that worlds of the backend ``"warp"`` can be made on a device.

    Raises:
        ValueError: for a device of another kind than cpu and cuda.
        mtenvs.spec.MissingDeviceError: which is one, if the device is not there or its driver is too old.
        mtenvs.spec.MissingPackageError: where ``mtenvs[gpu]`` is not installed.
    """
    with _needing_warp():
        from mtenvs.backends.mujoco_warp import check_device
    check_device(device)


def world_bytes(models: Sequence[mujoco.MjModel], family: Family, device: Any) -> tuple[int, int]:
    """Free memory of a CUDA device, and about what a world of the largest of some models takes of it."""
    with _needing_warp():
        from mtenvs.backends import mujoco_warp
    largest = max(models, key=lambda model: (model.nv, model.nsensordata))
    sizes = mujoco_warp.probe_sizes(models, family.frame_skip)
    return mujoco_warp.free_bytes(device), mujoco_warp.bytes_per_world(largest, sizes)


@contextlib.contextmanager
def _needing_warp() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"backend='warp' needs the package {error.name}: pip install 'mtenvs[gpu]'", name=error.name
        ) from error
