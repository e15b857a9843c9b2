"""Imports point one way (DESIGN). Read from the syntax trees, imports inside of functions included."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("mtenvs", "baselines", "harness", "benchmarks", "tests")

# what a module of mtenvs may import of mtenvs; a package stands for its modules
TYPES = {"spec", "state"}
MTENVS = {
    "spec": set(),
    "rewards": set(),
    "blocks": set(),
    "state": set(),
    "families": {"families", "rewards", "blocks"} | TYPES,
    "registry": {"families", "spec"},
    "conditioning": {"spec"},
    "backends": {"backends"} | TYPES,
    "rendering": set(),
    "export": {"registry", "spec"},
    "env": {"registry", "conditioning", "backends", "rendering"} | TYPES,
    "vector_env": {"registry", "conditioning", "backends", "rendering", "env"} | TYPES,
    "counter_random": set(),
    "cuda_graphs": set(),
    "device_env": {"registry", "counter_random", "cuda_graphs", "backends", "env", "vector_env"} | TYPES,
    "make": {"backends", "vector_env", "device_env"} | TYPES,
    "adapters": {"adapters", "registry", "conditioning", "env", "vector_env"} | TYPES,
    "__init__": {"adapters", "registry", "spec"},
}
USES_BASELINES = {"bookmark", "cli", "pack", "ray_workers", "reference", "replicate", "run", "shipping"}
USES_BASELINES |= {"__main__"}
# of the harness: tables in, pages out
OFFLINE = {"comparability", "compare", "joint", "measures", "plots", "report", "selection"}
OFFLINE |= {"findings", "markdown", "parquet", "rebuild", "statistics", "table"}
CORE = {"array_api_compat", "gymnasium", "mujoco", "numpy"}
HEAVY = {
    "torch",
    "pandas",
    "dm_control",
    "dm_env",
    "stable_baselines3",
    "warp",
    "mujoco_warp",
    "matplotlib",
}
NEEDS_AN_EXTRA = {
    "mtenvs.backends.mujoco_warp",
    "mtenvs.adapters",
    "mtenvs.counter_random",
    "mtenvs.cuda_graphs",
    "mtenvs.device_env",
}


def modules(package: str) -> dict[str, Path]:
    """Dotted names of a package's modules; a package's own code is ``package.__init__``."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in sorted((ROOT / package).rglob("*.py"))
    }


ALL = {name: path for package in OURS for name, path in modules(package).items()}


def imports(path: Path) -> Iterator[str]:
    """Absolute dotted names that a file imports, but for those that only the type checker sees."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for child in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.relative_to(ROOT).parts[: -node.level]
                base = ".".join((*package, base)).rstrip(".")
            for alias in node.names:  # `from mtenvs import blocks` means the module blocks
                dotted = f"{base}.{alias.name}"
                known = dotted in ALL or f"{dotted}.__init__" in ALL
                yield dotted if known else base


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def part(name: str) -> str:
    """``mtenvs.backends.mujoco_batch`` -> ``backends``; ``mtenvs`` -> ``__init__``."""
    return [*name.split("."), "__init__"][1]


@pytest.mark.parametrize("name", modules("mtenvs"))
def test_mtenvs_points_one_way(name: str) -> None:
    assert part(name) in MTENVS, f"say in MTENVS what {name} may import"
    found = {part(i) for i in imports(ALL[name]) if within(i, "mtenvs")}
    assert found <= MTENVS[part(name)], f"{name} imports {sorted(found - MTENVS[part(name)])}"


def test_the_directions_have_no_circle() -> None:
    order = list(MTENVS)
    for name, allowed in MTENVS.items():
        assert all(order.index(a) <= order.index(name) for a in allowed), name


@pytest.mark.parametrize("name", modules("mtenvs"))
def test_mtenvs_needs_only_its_core_dependencies(name: str) -> None:
    tops = {i.split(".")[0] for i in imports(ALL[name])} - set(sys.stdlib_module_names)
    assert not tops & {"baselines", "harness", "benchmarks", "tests"}
    if not any(within(name, extra) for extra in NEEDS_AN_EXTRA):
        assert tops <= CORE | {"mtenvs"}, tops


@pytest.mark.parametrize("name", modules("baselines"))
def test_baselines_use_mtenvs_alone(name: str) -> None:
    assert not [i for i in imports(ALL[name]) if i.split(".")[0] in ("harness", "benchmarks", "tests")]


@pytest.mark.parametrize("name", modules("harness"))
def test_of_the_harness_few_import_baselines(name: str) -> None:
    found = list(imports(ALL[name]))
    assert not [i for i in found if i.split(".")[0] in ("benchmarks", "tests")]
    if part(name) not in USES_BASELINES:
        assert not [i for i in found if within(i, "baselines")], name


@pytest.mark.parametrize("start", [n for n in modules("harness") if part(n) in OFFLINE])
def test_analysis_and_report_read_tables_only(start: str) -> None:
    """Neither mtenvs nor PyTorch, nor through another module of the harness."""
    seen, waiting = set(), [start, "harness.__init__"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for found in imports(ALL[name]):
            assert found.split(".")[0] not in ("mtenvs", "baselines", "torch"), (
                f"{start}: {name} imports {found}"
            )
            waiting += [n for n in (found, f"{found}.__init__") if n in ALL]


def test_importing_mtenvs_loads_nothing_heavy_and_is_fast(tmp_path: Path) -> None:
    script = (
        "import sys, time, gymnasium, mujoco\n"
        "start = time.process_time()\n"
        "import mtenvs\n"
        "print(time.process_time() - start)\n"
        "print(*{m.split('.')[0] for m in sys.modules})\n"
    )
    seconds = []
    for _ in range(3):
        run = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        first, loaded = run.stdout.splitlines()
        seconds.append(float(first))
    assert not HEAVY & set(loaded.split())
    assert min(seconds) < 0.1


def test_gym_make_loads_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys, gymnasium as gym\n"
        "for env in (gym.make('mtenvs:mt/Biped-v0', task=0), gym.make_vec('mt/Biped-v0', num_envs=2)):\n"
        "    env.reset(seed=0)\n"
        "    env.step(env.action_space.sample())\n"
        "print(*{m.split('.')[0] for m in sys.modules})\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(run.stdout.split())
