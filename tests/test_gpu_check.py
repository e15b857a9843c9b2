"""``make gpu-check``, on Warp's CPU device in tiny sizes: all of it runs but the capture of CUDA graphs."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import Arguments, Check, Figure, interpolated, page, projected, reached
from benchmarks.record import Store

ROOT = Path(__file__).parents[1]

# what a machine with a card has, and what is packed for it (its issue), by the names of distributions
THERE = {"torch", "numpy", "scipy", "pandas", "seaborn", "tqdm", "rich"}
PACKED = {"mujoco", "mujoco-warp", "warp-lang", "gymnasium", "stable-baselines3", "dm-control"}
PACKED |= {"array-api-compat", "tyro", "safetensors"}

REFUSE = """
import sys

REFUSED = {refused!r}


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Missing())
"""


def needed(names: set[str]) -> set[str]:
    """Distributions with all that they need, extras left out."""
    known: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # for another platform
            continue
        known.add(normal(name))
        own = (r for r in requires if "extra ==" not in r)
        found = {normal(r.split(";")[0]) for r in own}
        waiting |= found - known
    return known


def normal(name: str) -> str:
    """A distribution's name as all its spellings have it."""
    for mark in " <>=!~([":
        name = name.split(mark)[0]
    return name.lower().replace("_", "-").replace(".", "-")


@pytest.fixture(scope="module")
def only_packed(tmp_path_factory) -> dict[str, str]:
    """The environment of a process that finds no package which a machine with a card lacks."""
    allowed = needed(THERE | PACKED)
    refused = sorted(
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not {normal(owner) for owner in owners} & allowed and not (ROOT / module).exists()
    )
    assert {"pytest", "pyarrow", "statsmodels", "sklearn"} <= {*refused}
    folder = tmp_path_factory.mktemp("refuse")
    (folder / "sitecustomize.py").write_text(REFUSE.format(refused=refused))
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


@pytest.fixture(scope="module")
def known(tmp_path_factory, only_packed):
    """What ``make gpu-check`` writes in tiny sizes on the CPU."""
    out = tmp_path_factory.mktemp("gpu")
    options = f"--device cpu --quick --minutes 20 --out {out}"
    done = subprocess.run(
        ["make", "gpu-check", f"PYTHON={sys.executable}", "VENV=/nonexistent", f"ARGS={options}"],
        cwd=ROOT,
        env=only_packed,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert (out / "gpu.md").read_text() in done.stdout
    assert {path.name for path in out.iterdir()} == {"gpu.json", "gpu.md"}
    return json.loads((out / "gpu.json").read_text())


@pytest.fixture
def result(known):
    """What a figure found, by its name."""
    return lambda name: known["figures"][name]["result"]


def test_what_is_missing_there_is_refused(only_packed):
    done = subprocess.run([sys.executable, "-c", "import pytest"], env=only_packed, capture_output=True)
    assert b"No module named 'pytest'" in done.stderr


def test_every_figure_is_measured(known):
    entries = known["figures"]
    assert [*entries] == [figure.name for figure in gpu.quick_figures()]
    assert {entry["status"] for entry in entries.values()} == {"measured"}
    assert known["machine"]["packages"]["mujoco_warp"] == importlib.metadata.version("mujoco-warp")
    # nothing is left out of what a card will be asked, but for sizes and families
    assert {f.call for f in gpu.figures()} == {f.call for f in gpu.quick_figures()}


def test_the_environment_is_slower_than_its_physics(result):
    found = result("throughput.Biped.16")
    assert 0.0 < found["ratio"]["median"] < 1.5  # a busy machine
    assert found["physics_steps_per_second"]["median"] == pytest.approx(
        found["substeps"] * found["steps_per_second"]["median"]
    )
    assert found["warnings"] == []


def test_shares_of_training_make_up_the_whole(result):
    by_runs = result("ppo.Biped.8x2")["by_runs"]
    assert [*by_runs] == ["1", "2"]
    for of in by_runs.values():
        assert 0.8 < sum(of["share"]["of_time"].values()) < 1.01
        assert of["share"]["of_time"]["physics"] > 0.1
        assert of["diverged_runs"] == 0
    evaluation = result("ppo.Biped.8x2")["evaluation"]
    assert (evaluation["worlds"], evaluation["steps"] > 0) == (2, True)


def test_warp_agrees_with_mujoco(result):
    found = result("parity")
    assert found["Biped_faults"] == {}
    for of in found["Biped"].values():
        # single precision is seen, so that something was compared
        assert 0.0 < of["forward"]["largest"] < of["step"]["largest"]


def test_steps_that_are_launched_alike_are_equal(result):
    found = result("capture.Biped.unrolled")
    assert found["equal"]
    assert {one["largest"] for one in found["differences"]} == {0.0}  # the CPU captures nothing


def test_the_plan_is_the_standard_one(result):
    found = result("plan")
    assert found["worlds_per_run"] == gpu.WIDTH
    assert sum(cohort["runs"] for cohort in found["cohorts"]) == found["runs"]
    sizes = [cohort["runs"] for cohort in found["cohorts"]]
    assert (min(sizes), max(sizes) < gpu.COHORTS[-1]) == (gpu.COHORTS[0], True)


def test_the_other_benchmarks_read_it_over(known, tmp_path):
    (tmp_path / "gpu.json").write_text(json.dumps(known))
    assert "gpu.md" in Store(tmp_path, quick=True).readme()


# -------------------------------------------------------------------------------- what goes wrong


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Makes checks of three figures whose processes do what a script says."""
    monkeypatch.setattr(gpu, "quick_figures", lambda: [Figure(n, "machine", {}, 0, 9) for n in "abc"])

    class Scripted:
        """Instead of a process: its exit status, after it has written what it found."""

        script: dict[str, object] = {}
        ended: list[str] = []
        lines = ("the last line",)

        def carry_out(self, order, limit):
            name = next(iter(self.script))
            status = self.script.pop(name)
            Path(order["path"]).write_text(json.dumps({"mode": order["mode"], "traceback": "Error: x | y"}))
            if isinstance(status, BaseException):
                raise status
            return status

        def end(self):
            self.ended.append("")

    def make(*, only: tuple[str, ...] = (), resume: bool = False, **script: object) -> Check:
        monkeypatch.setattr(Scripted, "script", script)
        monkeypatch.setattr(gpu, "Process", Scripted)
        return Check(Arguments(device="cpu", quick=True, only=only, resume=resume, out=tmp_path))

    return make


def read(tmp_path: Path) -> dict:
    return {n: e["status"] for n, e in json.loads((tmp_path / "gpu.json").read_text())["figures"].items()}


def test_a_failure_stops_no_other_figure(check, tmp_path):
    assert check(a=0, b=1, c=None).run() == ["b", "c"]
    entries = json.loads((tmp_path / "gpu.json").read_text())["figures"]
    assert [entries[n]["status"] for n in "abc"] == ["measured", "failed", "failed"]
    assert entries["c"]["reason"] == "not done after 9 s"
    assert entries["b"]["log"] == ["the last line"]
    assert "| b | failed | exit status 1; Error: x \\| y |" in (tmp_path / "gpu.md").read_text()


def test_an_interrupted_check_keeps_what_it_knows_and_is_gone_on_with(check, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        check(a=0, b=KeyboardInterrupt()).run()
    assert read(tmp_path) == {"a": "measured", "b": "interrupted"}
    assert check(resume=True, b=0, c=0).run() == []
    assert read(tmp_path) == dict.fromkeys("abc", "measured")
    # without being told to go on, from the beginning
    assert check(a=0, b=0, c=1).run() == ["c"]


def test_a_figure_for_which_no_time_is_left_says_so(check, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "quick_figures", lambda: [Figure("a", "machine", {}, 3600, 9)])
    assert check().run() == []
    assert read(tmp_path) == {"a": "skipped"}
    assert "about 3600 are needed" in (tmp_path / "gpu.md").read_text()


def test_an_unknown_figure_is_refused(check):
    with pytest.raises(SystemExit, match="no figure begins with d; there are a, b, c"):
        check(only=("d",))


@pytest.mark.parametrize(
    ("unrolled", "loop", "mode"),
    [(0, 1, "unrolled"), (1, 0, "loop"), (1, None, "uncaptured")],
)
def test_steps_are_launched_in_a_way_that_works(check, tmp_path, monkeypatch, unrolled, loop, mode):
    names = ("capture.Biped.unrolled", "capture.Biped.loop", "c")
    monkeypatch.setattr(gpu, "quick_figures", lambda: [Figure(n, "capture", {}, 0, 9) for n in names])
    made = check(x=unrolled, y=loop, z=0)
    made.run()
    assert made.known["figures"]["c"]["mode"] == mode


def test_a_process_that_takes_too_long_is_killed_and_says_where_it_was(tmp_path, monkeypatch):
    arguments = {"family": "Biped", "worlds": 8}
    figure = Figure("slow", "throughput", arguments, 0, 0.01)
    monkeypatch.setattr(gpu, "quick_figures", lambda: [figure])
    made = Check(Arguments(device="cpu", quick=True, out=tmp_path))
    assert made.run() == ["slow"]
    assert made.known["figures"]["slow"]["reason"].startswith("not done after")


def test_without_a_card_nothing_more_is_tried(tmp_path, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    figures = [Figure(name, "throughput", {"family": "Biped", "worlds": 8}, 0, 60) for name in "ab"]
    monkeypatch.setattr(gpu, "quick_figures", lambda: figures)
    with pytest.raises(SystemExit, match="no device 'cuda'"):
        Check(Arguments(device="cuda", quick=True, out=tmp_path)).run()
    assert read(tmp_path) == {"a": "failed"}
    # and the command asks before it writes over what a card has measured
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match=r"gpu-check: .*no device 'cuda'"):
        gpu.main()
    assert not (tmp_path / "none").exists()


# ------------------------------------------------------------------------------------------- projections


def test_between_and_beyond_known_values_lines_go_on():
    known = {1: 2.0, 10: 20.0, 20: 25.0}
    assert [interpolated(known, x) for x in (1, 5, 10, 14, 40)] == [2.0, 10.0, 20.0, 22.0, 35.0]


def training(width: int, **more: object) -> dict:
    """What a figure of training finds: 1 s for a rollout of 1 run, 2 s for one of 11."""
    by_runs = {
        "1": {"rollout_seconds": [1.0, 0.9, 1.1], "steps_per_second": {"median": 100.0}},
        "11": {"rollout_seconds": [2.0], "steps_per_second": {"median": 550.0}},
    }
    return {"width": width, "by_runs": by_runs, "times_as_long": {"median": 2.0}, **more}


def test_the_rotation_follows_from_rollouts_and_evaluations():
    plan = {
        "worlds_per_run": 56,
        "steps": 1000,
        "episodes": 2,
        "first_episodes": 6,
        "episode_steps": 100,
        "cohorts": [
            {"runs": 6, "rollouts": 40, "evaluations": 1},
            {"runs": 20, "rollouts": 10, "evaluations": 4},
        ],
    }
    evaluation = {"worlds": 20, "start_seconds": 3.0, "step_seconds": 0.01}
    measured = {"plan": plan, "ppo.Biped.56x11": training(56, evaluation=evaluation)}
    minutes = projected(measured)
    # 40 rollouts of 1.5 s, 10 of 2.9 s
    assert minutes["training"] == pytest.approx((60 + 29) / 60)
    # 3 evaluations of 12 worlds: 1 s + 1.8 s; 6 of 40: 2 s + 6 s
    assert minutes["evaluation"] == pytest.approx((3 * 2.8 + 6 * 8.0) / 60)
    assert reached(measured)["rotation"] == pytest.approx(minutes["training"] + minutes["evaluation"])
    # of other worlds per run nothing is projected
    assert projected({**measured, "ppo.Biped.56x11": training(8, evaluation=evaluation)}) is None


def test_goals_are_read_from_the_figures_that_they_are_of():
    def rate(worlds: int, ratio: float, speed: float) -> dict:
        return {
            "worlds": worlds,
            "mode": "loop",
            "ratio": {"median": ratio},
            "milliseconds": {"median": 1.0},
            **{
                key: dict.fromkeys(("median", "min", "max"), speed)
                for key in ("steps_per_second", "physics_steps_per_second", "bare_physics_steps_per_second")
            },
        }

    measured = {
        "throughput.Biped.1024": rate(1024, 0.9, 9e9),
        "throughput.Biped.32768": rate(32768, 0.7, 2e7),
        "throughput.Biped.131072": rate(131072, 0.5, 3e7),
    }
    assert reached(measured) == {
        "ratio": 0.7,
        "physics": 3e7,
        "ppo": None,
        "ten_runs": None,
        "rotation": None,
    }
    entries = {name: {"status": "measured", "result": found} for name, found in measured.items()}
    text = page(
        {
            "figures": entries,
            "quick": False,
            "machine": {"packages": {}},
            "device": "cuda",
            "finished": "",
            "command": "",
        }
    )
    assert "| at least 0.6 | 0.7 | met |" in text
    assert "30,000,000 | met |" in text
    assert "Biped | 131,072 | loop |" in text


# --------------------------------------------------------------------------------------- with a card


@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures need a CUDA card")
@pytest.mark.parametrize(
    ("family", "mode"), [("Biped", "loop"), ("Biped", "unrolled"), ("Octopus", "unrolled")]
)
def test_captured_steps_are_those_that_are_launched_one_by_one(tmp_path, family, mode):
    from benchmarks import gpu_figures

    order = gpu_figures.Order("capture", {}, str(tmp_path / "x"), "cuda", mode, True, 0.0)
    figure = gpu_figures.Figure(dataclasses.replace(order))
    gpu_figures.capture(figure, family, worlds=64, mode=mode)
    assert figure.known["equal"]
