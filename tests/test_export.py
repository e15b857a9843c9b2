from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

import mtenvs
from mtenvs.export import export

ASSETS = Path(__file__).parents[1] / "assets" / "xml"


def file_of(task: mtenvs.Task) -> Path:
    family = mtenvs.get_family(task.family)
    return ASSETS / f"{family.name}-v{family.version}" / f"{task.number}-{task.name}.xml"


def test_file_and_generator_agree(task: mtenvs.Task) -> None:
    assert file_of(task).read_text(encoding="utf-8") == mtenvs.mjcf(task.family, task), "run `make export`"


def test_no_file_is_left_of_a_task_that_is_gone() -> None:
    tasks = [t for name in mtenvs.families() for t in mtenvs.tasks(name)]
    assert set(ASSETS.rglob("*.xml")) == {file_of(t) for t in tasks}


def test_the_loaded_file_is_the_generated_model(task: mtenvs.Task) -> None:
    """Equal up to the six digits that MuJoCo writes."""
    loaded, built = mujoco.MjModel.from_xml_path(str(file_of(task))), mtenvs.model(task.family, task)
    for name in dir(built):
        value = getattr(built, name)
        if name.startswith("_") or not isinstance(value, (np.ndarray, int, float)):
            continue
        np.testing.assert_allclose(getattr(loaded, name), value, rtol=1e-5, atol=1e-5, err_msg=name)
    for name in ("timestep", "integrator", "solver", "iterations", "cone", "disableflags", "enableflags"):
        assert getattr(loaded.opt, name) == getattr(built.opt, name), name
    names = [[m.sensor(i).name for i in range(m.nsensor)] for m in (loaded, built)]
    assert names[0] == names[1]


def test_export_writes_what_it_returns(family: mtenvs.Family, tmp_path: Path) -> None:
    paths = export(tmp_path / "deep" / "xml", family.name)
    assert sorted(paths) == sorted((tmp_path / "deep").rglob("*.*"))
    assert [p.stem.split("-", 1) for p in paths] == [[str(t.number), t.name] for t in family.tasks]


def test_export_of_an_unknown_family_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown family 'Nobody'"):
        export(tmp_path / "xml", "Nobody")
    assert not list(tmp_path.iterdir())
