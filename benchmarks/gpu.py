"""``make gpu-check``: what a CUDA card makes of this, in under nine minutes, without an installation.

Every figure is taken in a process of its own (``benchmarks/gpu_figures.py``), most important first, under a
time limit, and written as soon as it is known: ``gpu.json`` with everything so far and ``gpu.md`` with the
tables made from it. A figure that fails leaves its traceback there and stops no other; one for which no
time is left says so. ``--resume`` goes on with those that are not measured yet.

This process imports nothing but the standard library and tyro.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from benchmarks.record import spread
from harness import markdown

ROOT = Path(__file__).parents[1]
FAMILIES = ("Biped", "BipedSkills", "DMWalker", "Octopus")
WIDTH = 56
"""Worlds of a run in the published protocol, the same as on a CPU."""
COHORTS = (80, 240)
"""Runs of a cohort: as many as most of the standard rotation have, and thrice as many."""
EPISODES = 16
"""Of an evaluation."""
NO_DEVICE = 3
"""Exit status of a process that finds no such device: the others would find none either."""
LOG_LINES = 80
"""Of a process that failed, which are kept."""
LAST_WORDS = 2.0
"""Seconds for a process to say where it stands before it is killed."""
RESERVE = 5.0
"""Seconds of the whole that no figure may use."""

# what the project set itself beforehand, for one H200
GOALS = {
    "ratio": (0.6, "the whole environment over bare mujoco_warp.step, same models, Biped, 32,768 worlds"),
    "physics": (15e6, "physics steps/s, Biped, 32,768 worlds or more (the aim is 40M)"),
    "ppo": (1e6, "environment steps/s of PPO end to end, all runs together (the aim is 3M)"),
    "ten_runs": (1.5, "time of 10 runs over that of 1, same worlds per run"),
    "rotation": (10.0, "minutes of the standard leave-one-out of a family"),
}
AT_MOST = ("ten_runs", "rotation")
"""Goals that are not to be exceeded; the others are to be reached."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """Something to measure."""

    name: str
    """Where its results are kept."""
    call: str
    """Function of ``benchmarks.gpu_figures``."""
    arguments: Mapping[str, Any]
    """Its arguments."""
    needs: float
    """Seconds that it takes as far as is known; it is not begun where fewer are left."""
    limit: float
    """Seconds after which it is killed."""
    mode: str | None = None
    """How steps are launched; ``None`` for what the check of captures has shown to work."""


def figures() -> list[Figure]:
    """All figures, most important first."""
    per_size = {1024: (15, 60), 8192: (15, 60), 32768: (20, 75), 131072: (40, 120)}

    def rate(family: str, worlds: int, mode: str | None = None) -> Figure:
        name = f"throughput.{family}.{worlds}" + (f".{mode}" if mode else "")
        needs, limit = per_size[worlds]
        return Figure(name, "throughput", {"family": family, "worlds": worlds}, needs, limit, mode)

    def ppo(width: int, runs: Sequence[int], needs: float, limit: float, episodes: int = 0) -> Figure:
        arguments = {"family": "Biped", "runs": list(runs), "width": width, "episodes": episodes}
        return Figure(f"ppo.Biped.{width}x{runs[-1]}", "training", arguments, needs, limit)

    def check(mode: str, family: str = "Biped") -> Figure:
        arguments = {"family": family, "worlds": 1024, "mode": mode}
        return Figure(f"capture.{family}.{mode}", "capture", arguments, 15, 60, mode)

    return [
        Figure("machine", "machine", {}, 5, 40),
        Figure("kernels", "kernels", {"families": FAMILIES}, 30, 200),
        check("unrolled"),
        check("loop"),
        rate("Biped", 32768),
        Figure("parity", "parity", {"families": FAMILIES}, 20, 90),
        ppo(WIDTH, (1, 10), 25, 90),
        ppo(WIDTH, COHORTS, 40, 120, EPISODES),
        Figure("plan", "plan", {"family": "Biped"}, 5, 40),
        rate("Biped", 131072),
        rate("Octopus", 32768),
        rate("DMWalker", 32768),
        rate("BipedSkills", 32768),
        ppo(1024, (1, 10), 25, 90),
        rate("Biped", 8192),
        rate("Biped", 1024),
        ppo(4096, (1, 10), 30, 100),
        rate("Octopus", 32768, "in_turn"),
        check("unrolled", "Octopus"),
    ]


def quick_figures() -> list[Figure]:
    """The same kinds of figures in tiny sizes."""
    one = {"family": "Biped"}
    return [
        Figure("machine", "machine", {}, 0, 60),
        Figure("kernels", "kernels", {"families": ["Biped"]}, 0, 300),
        Figure(
            "capture.Biped.unrolled",
            "capture",
            {**one, "worlds": 8, "mode": "unrolled"},
            0,
            120,
            "unrolled",
        ),
        Figure("throughput.Biped.16", "throughput", {**one, "worlds": 16}, 0, 120),
        Figure("parity", "parity", {"families": ["Biped"]}, 0, 120),
        Figure(
            "ppo.Biped.8x2",
            "training",
            {**one, "runs": [1, 2], "width": 8, "episodes": 1},
            0,
            120,
        ),
        Figure("plan", "plan", one, 0, 60),
    ]


# ------------------------------------------------------------------------------------------ processes


class Process:
    """One that has imported what it needs and waits for what to measure."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "benchmarks.gpu_figures"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that it can be killed with all that it started
        )
        self.lines: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip())
            print(line, end="", flush=True)

    def carry_out(self, order: Mapping[str, Any], limit: float) -> int | None:
        """Gives the order and waits; its exit status, or ``None`` where the time was up."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died while it imported; its lines say why
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.close()
        try:
            status: int | None = self._process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            status = None
            self._process.send_signal(signal.SIGUSR1)
            time.sleep(LAST_WORDS)
        self.end()
        return status

    def end(self) -> None:
        """Kills it and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(timeout=LAST_WORDS)


class Check:
    """All figures in turn, within the time that there is."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments, self._out = arguments, arguments.directory
        self._began = time.time()
        self._deadline = time.monotonic() + 60.0 * arguments.minutes - RESERVE
        self._figures = quick_figures() if arguments.quick else figures()
        if arguments.only:
            self._figures = [f for f in self._figures if f.name.startswith(arguments.only)]
            if not self._figures:
                names = ", ".join(f.name for f in (quick_figures() if arguments.quick else figures()))
                raise SystemExit(f"no figure begins with {' or '.join(arguments.only)}; there are {names}")
        kept = self._out / "gpu.json"
        before = json.loads(kept.read_text()) if arguments.resume and kept.is_file() else {}
        self.known: dict[str, Any] = {
            # as benchmarks/record.py reads every result in this directory
            "machine": before.get("machine", {"packages": {}}),
            "command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]),
            "finished": "",
            "quick": arguments.quick,
            "rows": [],
            "text": "Measured on a GPU: [gpu.md](gpu.md).\n",
            "device": arguments.device,
            "figures": before.get("figures", {}),
        }

    def say(self, text: str) -> None:
        """Prints a line of progress."""
        print(f"[{time.time() - self._began:5.0f} s] {text}", flush=True)

    def run(self) -> list[str]:
        """Measures what is not known yet; returns the names of the figures that failed."""
        self._out.mkdir(parents=True, exist_ok=True)
        entries = self.known["figures"]
        waiting = [f for f in self._figures if entries.get(f.name, {}).get("status") != "measured"]
        if not waiting:
            return []
        ready = Process()
        try:
            for figure in waiting:
                left = self._deadline - time.monotonic()
                if left < figure.needs:
                    reason = f"{left:.0f} s were left, about {figure.needs:g} are needed"
                    self._keep(figure, {"status": "skipped", "reason": reason})
                    continue
                process, ready = ready, Process()  # the next one imports while this one measures
                try:
                    self._measure(figure, process, min(figure.limit, left))
                except KeyboardInterrupt:
                    process.end()
                    self._keep(figure, {"status": "interrupted", "result": self._found()})
                    raise
        finally:
            ready.end()
            for left_over in self._out.glob("gpu.part*"):
                left_over.unlink()
        return [figure.name for figure in waiting if entries[figure.name]["status"] == "failed"]

    def _measure(self, figure: Figure, process: Process, limit: float) -> None:
        mode = figure.mode or self.mode
        self.say(f"== {figure.name}, at most {limit:.0f} s")
        self._part.unlink(missing_ok=True)
        started = time.monotonic()
        order = {
            "call": figure.call,
            "arguments": dict(figure.arguments),
            "path": str(self._part),
            "device": self._arguments.device,
            "mode": mode,
            "quick": self._arguments.quick,
            "began": self._began,
        }
        status = process.carry_out(order, limit)
        entry: dict[str, Any] = {
            "status": "measured" if status == 0 else "failed",
            "seconds": round(time.monotonic() - started, 1),
            "mode": mode,
            "result": self._found(),
        }
        if status is None:
            entry["reason"] = f"not done after {limit:.0f} s"
        elif status:
            entry["reason"] = f"exit status {status}"
        if status != 0:
            entry["log"] = list(process.lines)
        self._keep(figure, entry)
        if status == NO_DEVICE:
            raise SystemExit(_last_line(entry))

    @property
    def _part(self) -> Path:
        return self._out / "gpu.part"

    def _found(self) -> dict[str, Any]:
        """What the figure that is being measured has written so far."""
        try:
            found: dict[str, Any] = json.loads(self._part.read_text())
        except FileNotFoundError:
            found = {}
        return found

    @property
    def mode(self) -> str:
        """The best way of launching steps that has been seen to work, one of ``gpu_figures.MODES``."""
        tried = [name for name in ("unrolled", "loop") if f"capture.Biped.{name}" in self.known["figures"]]
        for name in tried:
            if self.known["figures"][f"capture.Biped.{name}"]["status"] == "measured":
                return name
        return "uncaptured" if tried else "unrolled"

    def _keep(self, figure: Figure, entry: dict[str, Any]) -> None:
        """Writes everything so far, and the tables."""
        self.known["figures"][figure.name] = entry
        if figure.name == "machine" and entry.get("result", {}).get("packages"):
            self.known["machine"] = entry["result"]
        self.known["finished"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        _write(self._out / "gpu.json", json.dumps(self.known, indent=1) + "\n")
        _write(self._out / "gpu.md", page(self.known))
        self.say(f"== {figure.name}: {entry['status']}" + f", {entry.get('reason')}" * ("reason" in entry))


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(f"{path.suffix}.new")
    part.write_text(text)
    os.replace(part, path)


# ---------------------------------------------------------------------------------------------- tables


def page(known: Mapping[str, Any]) -> str:
    """All that is known as Markdown."""
    entries = known["figures"]
    measured = {name: e["result"] for name, e in entries.items() if e["status"] == "measured"}
    parts = ["# Measured on a GPU\n\nWritten by `make gpu-check` from `gpu.json` beside it.\n"]
    if known["quick"]:
        parts.append("**A smoke run with tiny sizes: the figures below measure nothing.**\n")
    parts.append(_machine(known["machine"], known))
    parts.append(_goals(measured))
    for heading, rows in (
        ("Environment beside bare physics", _throughput_rows(measured)),
        ("PPO end to end, Biped", _training_rows(measured)),
        ("Where the time of PPO goes", _share_rows(measured)),
        ("Parity with C MuJoCo on the card", _parity_rows(measured)),
        ("Captured and uncaptured steps", _capture_rows(entries)),
        ("What was not measured", _missing_rows(entries)),
    ):
        if len(rows) > 1:
            parts.append(f"## {heading}\n\n{_table(rows)}")
    return "\n".join(parts)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    return markdown.table(head, rest) + "\n"


def _machine(machine: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    copied = machine.get("copied_bytes_per_second")
    said = (
        machine.get("nvidia_smi") or machine.get("gpu") or f"device {known['device']}",
        f"copies {copied / 1e12:.2f} TB/s, read and written" if copied else "",
        machine.get("cpu", ""),
        packages,
        known["finished"],
        f"`{known['command']}`",
    )
    return "; ".join(text for text in said if text) + "\n"


def _range(values: Mapping[str, float], form: str = ",.0f") -> str:
    return f"{values['median']:{form}} [{values['min']:{form}}, {values['max']:{form}}]"


def _memory(found: Mapping[str, Any]) -> str:
    memory = found.get("memory")
    return f"{memory['taken'] / 2**30:.2f} GiB" if memory else ""


def _throughput_rows(measured: Mapping[str, Any]) -> list[list[str]]:
    speeds = ("environment steps/s", "physics steps/s in it", "bare physics steps/s", "ratio")
    rows = [["family", "worlds", "launched", *speeds, "ms a step", "memory"]]
    for name, found in measured.items():
        if name.startswith("throughput."):
            rows.append(
                [
                    name.split(".")[1],
                    f"{found['worlds']:,}",
                    found["mode"],
                    _range(found["steps_per_second"]),
                    _range(found["physics_steps_per_second"]),
                    _range(found["bare_physics_steps_per_second"]),
                    f"**{found['ratio']['median']:.2f}**",
                    f"{found['milliseconds']['median']:.3f}",
                    _memory(found),
                ]
            )
    return rows


def _by_runs(measured: Mapping[str, Any]) -> list[tuple[int, int, Mapping[str, Any]]]:
    """Worlds of a run, runs, and what is known of their training."""
    return [
        (found["width"], int(runs), of)
        for name, found in measured.items()
        if name.startswith("ppo.")
        for runs, of in found["by_runs"].items()
    ]


def _training_rows(measured: Mapping[str, Any]) -> list[list[str]]:
    times = "ms of a rollout and its update"
    rows = [["runs", "worlds of each", "steps/s, all together", times, "over that of 1 run", "memory"]]
    alone = {
        width: 1e3 * spread(of["rollout_seconds"])["median"]
        for width, runs, of in _by_runs(measured)
        if runs == 1
    }
    for width, runs, of in _by_runs(measured):
        milliseconds = spread([1e3 * s for s in of["rollout_seconds"]])
        speed = _range(of["steps_per_second"])
        longer = f"{milliseconds['median'] / alone[width]:.2f}" if width in alone else ""
        cells = [speed, _range(milliseconds, ",.1f"), longer, _memory(of)]
        rows.append([str(runs), f"{width:,}", *cells])
    return rows


def _share_rows(measured: Mapping[str, Any]) -> list[list[str]]:
    parts = ("physics", "environment", "policy", "estimate", "update")
    rows = [["runs", "worlds of each", *parts]]
    for width, runs, of in _by_runs(measured):
        rows.append([str(runs), f"{width:,}", *(f"{of['share']['of_time'][part]:.0%}" for part in parts)])
    return rows


def _parity_rows(measured: Mapping[str, Any]) -> list[list[str]]:
    levels = ("forward", "step", "functions")
    rows = [["task", "states", *(f"{level}, largest" for level in levels), "exempt", "within"]]
    found = measured.get("parity", {})
    for family in (name for name in found if f"{name}_faults" in found):
        for task, of in found[family].items():
            exempt = sum(of[level]["exempt"] for level in levels)
            faults = "; ".join(found[f"{family}_faults"].get(task, []))
            cells = [f"{of[level]['largest']:.1e}" for level in levels]
            within = f"**no**: {faults}" if faults else "yes"
            rows.append([f"{family}/{task}", f"{of['states']:,}", *cells, str(exempt), within])
    return rows


def _capture_rows(entries: Mapping[str, Any]) -> list[list[str]]:
    rows = [["family", "worlds", "launched", "ms a step", "uncaptured", "differ by", "works"]]
    for name, entry in entries.items():
        if not name.startswith("capture."):
            continue
        found = entry.get("result", {})
        times = found.get("milliseconds", {})
        cells = [
            f"{times[key]['median']:.3f}" if key in times else ""
            for key in (found.get("mode"), "uncaptured")
        ]
        early = f"{found['early']:.1e}" if "early" in found else ""
        works = "yes" if entry["status"] == "measured" else f"no: {_why(entry)}"
        rows.append(
            [name.split(".")[1], f"{found.get('worlds', 0):,}", name.split(".")[2], *cells, early, works]
        )
    return rows


def _missing_rows(entries: Mapping[str, Any]) -> list[list[str]]:
    rows = [["figure", "", "why"]]
    for name, entry in entries.items():
        if entry["status"] != "measured":
            rows.append([name, entry["status"], _why(entry)])
    return rows


def _why(entry: Mapping[str, Any]) -> str:
    """What went wrong, fit for a table."""
    said = (entry.get("reason", ""), _last_line(entry))
    return "; ".join(text for text in said if text).replace("|", "\\|")[:300]


def _last_line(entry: Mapping[str, Any]) -> str:
    """The last line of the traceback, or of what the process printed."""
    lines = entry.get("result", {}).get("traceback", "").strip().splitlines() or entry.get("log", [])
    return lines[-1] if lines else ""


# ---------------------------------------------------------------------------------------------- goals


def _goals(measured: Mapping[str, Any]) -> str:
    rows = [["goal", "", "measured", ""]]
    for name, value in reached(measured).items():
        goal, what = GOALS[name]
        bound = f"{'at most' if name in AT_MOST else 'at least'} {goal:,g}"
        if value is None:
            rows.append([what, bound, "not measured", ""])
            continue
        met = value <= goal if name in AT_MOST else value >= goal
        rows.append(
            [what, bound, f"{value:,.3g}" if value < 1000 else f"{value:,.0f}", "met" if met else "not met"]
        )
    text = f"## Goals\n\n{_table(rows)}"
    if (minutes := projected(measured)) is not None:
        text += (
            f"\nThe rotation's time is projected from rollouts and evaluations of {WIDTH} worlds a run: "
            f"{minutes['training']:.1f} min of training and {minutes['evaluation']:.1f} min of evaluation, "
            f"each episode to its limit; {minutes['steps'] / 1e6:.0f}M steps in {minutes['cohorts']:.0f} "
            "cohorts.\n"
        )
    return text


def reached(measured: Mapping[str, Any]) -> dict[str, float | None]:
    """What is known of every goal, by name; ``None`` where nothing is."""
    rates = [f for n, f in measured.items() if n.startswith("throughput.Biped.") and f["worlds"] >= 32768]
    large = [f["bare_physics_steps_per_second"]["median"] for f in rates]
    speeds = [of["steps_per_second"]["median"] for _, _, of in _by_runs(measured)]
    beside_one = [f for n, f in measured.items() if n.startswith("ppo.") and "1" in f["by_runs"]]
    longer = [f["times_as_long"]["median"] for f in beside_one]
    minutes = projected(measured)
    return {
        "ratio": next((f["ratio"]["median"] for f in rates if f["worlds"] == 32768), None),
        "physics": max(large, default=None),
        "ppo": max(speeds, default=None),
        "ten_runs": max(longer, default=None),
        "rotation": None if minutes is None else minutes["training"] + minutes["evaluation"],
    }


def projected(measured: Mapping[str, Any]) -> dict[str, float] | None:
    """Minutes of the standard rotation, by the time of a rollout and of an evaluation's step.

    Between the numbers of runs that were measured, a rollout's time is taken to grow evenly; an
    evaluation's step is taken at the largest, or in proportion where it has more worlds.
    """
    plan = measured.get("plan")
    seconds = {
        runs: spread(of["rollout_seconds"])["median"]
        for width, runs, of in _by_runs(measured)
        if plan and width == plan["worlds_per_run"]
    }
    played = [f["evaluation"] for n, f in measured.items() if n.startswith("ppo.") and "evaluation" in f]
    if not plan or len(seconds) < 2 or not played:
        return None
    training = evaluation = 0.0
    for cohort in plan["cohorts"]:
        training += cohort["rollouts"] * interpolated(seconds, cohort["runs"])
        more = cohort["runs"] * plan["episodes"] / played[0]["worlds"]
        # the first is of so many more episodes
        number = cohort["evaluations"] - 1 + plan["first_episodes"] / plan["episodes"]
        step = played[0]["step_seconds"] * max(1.0, more)
        evaluation += number * (plan["episode_steps"] * step + played[0]["start_seconds"] * more)
    return {
        "training": training / 60.0,
        "evaluation": evaluation / 60.0,
        "cohorts": float(len(plan["cohorts"])),
        "steps": float(plan["steps"]),
    }


def interpolated(known: Mapping[int, float], x: int) -> float:
    """A value between known ones on straight lines; beyond them the outermost line goes on.

    Args:
        known: two or more values by where they are.
        x: where.
    """
    points = sorted(known)
    upper = next((i for i, point in enumerate(points) if point >= x and i), len(points) - 1)
    low, high = points[upper - 1], points[upper]
    return known[low] + (known[high] - known[low]) * (x - low) / (high - low)


# ----------------------------------------------------------------------------------------- command line


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures what a CUDA card makes of worlds and training, and checks that both are right there."""

    device: str = "cuda"
    """cuda, cuda:N, or cpu, which shows that everything runs."""
    quick: bool = False
    """Tiny sizes: measures nothing."""
    minutes: float = 9.0
    """For the whole; what does not fit is skipped, and said to be."""
    only: tuple[str, ...] = ()
    """First parts of the names of the figures to take, as in gpu.json; all if left out."""
    resume: bool = False
    """Keep what gpu.json has, and take what is not measured there."""
    out: Path | None = None
    """Directory for the results; results/benchmarks, or runs/gpu-quick with --quick."""

    @property
    def directory(self) -> Path:
        """Where the results go, absolute."""
        return (self.out or Path("runs/gpu-quick" if self.quick else "results/benchmarks")).absolute()


def main() -> None:
    """Takes all figures; exit status 1 if any failed."""
    arguments = tyro.cli(Arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as by the keyboard
    # before anything is written over, and in a process whose memory on the card goes with it
    asked = f"from mtenvs.make import check_warp; check_warp({arguments.device!r})"
    answer = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    if answer.returncode:
        raise SystemExit(f"gpu-check: {answer.stderr.strip().splitlines()[-1]}")
    check = Check(arguments)
    failed = check.run()
    print(page(check.known))
    print(f"results: {arguments.directory / 'gpu.json'} and gpu.md")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
