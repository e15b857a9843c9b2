"""What the fuzzing tests share: how many cases, what counts as a clear refusal, and how files are spoilt.

``python -m pytest -n0 tests/test_fuzz_*.py --hypothesis-profile=soak`` tries thousands of random cases;
without, a small number that is always the same. ``MTENVS_SOAK_OUT=DIR`` has every test write there how many
cases were accepted and refused, as ``DIR/<name>.json``.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import linecache
import os
import random
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from baselines.registry import describe_learner
from mtenvs.spec import MissingPackageError

ROOT = Path(__file__).parents[1]
OURS = tuple(str(ROOT / name) + os.sep for name in ("mtenvs", "baselines", "harness"))
SOAK = "soak"
SOAK_CASES = 2000
SECONDS = 60.0
"""That a case may take before it counts as hanging."""


def register_profiles() -> None:
    """Makes the profile ``soak``; the others stay as they are."""
    settings.register_profile(SOAK, max_examples=SOAK_CASES, deadline=None, print_blob=True)


def cases(few: int) -> settings:
    """How many cases a test tries: ``few``, always the same, or thousands at random when soaking."""
    soaking = settings.get_current_profile_name() == SOAK
    return settings(
        max_examples=SOAK_CASES if soaking else few,
        derandomize=not soaking,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def small_learner() -> dict[str, Any]:
    """What a plan freezes of a network that takes no time to make."""
    found = dataclasses.asdict(describe_learner("ppo", "Biped", {"hidden": [4]}))
    return {**found, "starts": list(found["starts"])}


class Hung(BaseException):
    """A case took too long; no library's ``except Exception`` swallows it."""


@contextlib.contextmanager
def within(seconds: float = SECONDS) -> Iterator[None]:
    """Ends what takes longer."""

    def stop(*_: object) -> None:
        raise Hung(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def is_clear(error: BaseException) -> bool:
    """Whether an error is one of ours, said on purpose: raised by a ``raise`` of the project's own.

    What Python or NumPy raises in the midst of a line of ours is no refusal but an accident, whatever its
    class. Of the operating system's errors those are clear that name a file.
    """
    if isinstance(error, OSError) and error.filename is not None:
        return True
    if not isinstance(
        error, (ValueError, TypeError, OSError, MissingPackageError, gym.error.Error)
    ) or not str(error):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, gym.error.Error):
        return True  # Gymnasium's are all meant to be read
    if error.__cause__ is not None and f"{os.sep}gymnasium{os.sep}" in last.filename:
        return is_clear(error.__cause__)  # it says again what an environment has said
    line = linecache.getline(last.filename, last.lineno or 0).strip()
    return last.filename.startswith(OURS) and line.startswith("raise")


class Tally:
    """Counts the cases of one test, accepted and refused, by the class of error."""

    def __init__(self, name: str) -> None:
        self.name, self.accepted, self.refused = name, 0, Counter[str]()

    def tried(self, call: Callable[[], Any], seconds: float = SECONDS) -> tuple[bool, Any]:
        """Makes a case: whether it was accepted, and its value or its error.

        Raises:
            AssertionError: for an error that is no clear refusal, or a case that hangs.
        """
        try:
            with within(seconds):
                value = call()
        except Hung as error:
            raise AssertionError(f"{error}: {call}") from error
        except Exception as error:
            if not is_clear(error):
                what = f"from deep inside: {type(error).__name__}: {error}"
                raise AssertionError(what) from error
            self.refused[type(error).__name__] += 1
            return False, error
        self.accepted += 1
        return True, value

    def write(self) -> None:
        """Writes what was counted, where ``MTENVS_SOAK_OUT`` says."""
        if out := os.environ.get("MTENVS_SOAK_OUT"):
            Path(out).mkdir(parents=True, exist_ok=True)
            refused = sum(self.refused.values())
            found = {"test": self.name, "cases": self.accepted + refused, "accepted": self.accepted,
                     "refused": refused, "by_error": dict(self.refused.most_common())}  # fmt: skip
            (Path(out) / f"{self.name}.json").write_text(json.dumps(found, indent=1) + "\n")


@contextlib.contextmanager
def tally(name: str) -> Iterator[Tally]:
    """A tally that is written at the end, whatever happens."""
    found = Tally(name)
    try:
        yield found
    finally:
        found.write()


# --- values ----------------------------------------------------------------------------------------

DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 8, 2**31, -(2**63), 2**64, 10**400, -(10**30)),
    *(0.0, -0.0, 0.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
    *("", " ", "0", "-1", "Biped", "nominal", "..", "../../x", "/etc/passwd", "a\x00b", "a\nb", "\ud800"),
    *("$\\frac{$", "ünï→😀", "x" * 5000, "<script>", "None", "\u202eabc", "%s{}", "=1+1"),
    *([], {}, [[]], [1, 2], {"a": 1}, {"": None}, ["a"], DEEP),
)
"""Values that are seldom meant."""

odd = st.sampled_from(ODD)
text = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
seeds = st.integers(0, 2**32)
"""Of the random choices of a spoiling, which is quicker than drawing each of them from Hypothesis."""


# --- spoiling --------------------------------------------------------------------------------------


def spoil_json(value: Any, rng: random.Random, replacement: Any) -> Any:
    """A copy of a JSON value in which one or two entries were replaced, removed, added or moved.

    Places near the top are as likely as those of all the leaves below.
    """
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2))):
        if not isinstance(value, (dict, list)) or not value:
            return value
        parent, depth = value, rng.randint(0, 5)
        for _ in range(depth):
            inner = [
                entry
                for entry in (parent.values() if isinstance(parent, dict) else parent)
                if isinstance(entry, (dict, list)) and entry
            ]
            if not inner:
                break
            parent = rng.choice(inner)
        key: Any = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
        how = rng.choice(("replace", "replace", "replace", "nudge", "remove", "add", "swap", "repeat"))
        if how == "replace":
            parent[key] = copy.deepcopy(replacement)
        elif how == "nudge":
            parent[key] = _nudged(parent[key], rng)
        elif how == "remove":
            del parent[key]
        elif isinstance(parent, dict):
            if how == "add":
                name = rng.choice(("x", "", "id", "start", "config", "\ud800"))
                parent[name] = copy.deepcopy(replacement)
            else:
                other = rng.choice(list(parent))
                parent[key], parent[other] = parent[other], parent[key]
        elif how == "add":
            parent.insert(key, copy.deepcopy(replacement))
        elif how == "repeat":
            parent.insert(key, copy.deepcopy(parent[key]))
        else:
            rng.shuffle(parent)
    return value


def _nudged(value: Any, rng: random.Random) -> Any:
    """A value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return rng.choice((value + 1, -value, value * 1000, 0, value // 2, 10**18))
    if isinstance(value, str):
        return rng.choice((value + "x", value[:-1], value.upper(), value * 300))
    return value


def spoil_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flips bytes, cuts, repeats or inserts some, or leaves nothing."""
    how = rng.choice(("flip", "flip", "cut", "head", "insert", "drop", "empty", "pickle"))
    if how == "empty" or not content:
        return b""
    at = rng.randrange(len(content))
    if how == "flip":
        spoilt = bytearray(content)
        for _ in range(rng.choice((1, 1, 8))):
            spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
        return bytes(spoilt)
    if how == "cut":
        return content[:at]
    if how == "head":
        return content[at:]
    if how == "drop":
        return content[:at] + content[at + rng.randint(1, 9) :]
    if how == "pickle":
        return b"\x80\x04cposix\nsystem\n\x8c\x04true\x85R."
    return content[:at] + rng.choice((b"\x00", b"\xff\xfe", b"[" * 100_000, b"{}", b"\n")) + content[at:]


def spoil_lines(content: bytes, rng: random.Random) -> bytes:
    """Removes, repeats or moves lines."""
    lines = content.splitlines(keepends=True)
    if not lines:
        return b"\n"
    at = rng.randrange(len(lines))
    how = rng.choice(("remove", "repeat", "shuffle", "blank", "tear"))
    if how == "remove":
        del lines[at]
    elif how == "repeat":
        lines.insert(rng.randrange(len(lines)), lines[at])
    elif how == "shuffle":
        rng.shuffle(lines)
    elif how == "blank":
        lines.insert(at, b"\n")
    else:
        lines[-1] = lines[-1][: rng.randrange(len(lines[-1]))]
    return b"".join(lines)


def spoil_file(path: Path, rng: random.Random) -> None:
    """Puts something else in a file's place: nothing, a directory, a link to itself or to nowhere."""
    path.unlink()
    how = rng.choice(("gone", "directory", "loop", "dangling", "device"))
    if how == "directory":
        path.mkdir()
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "dangling":
        path.symlink_to("nowhere")
    elif how == "device":
        path.symlink_to("/dev/null")


def remove(path: Path) -> None:
    """Removes whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
