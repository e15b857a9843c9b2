"""mtenvs: multitask MuJoCo environments for measuring transfer. Importing it registers the ``mt/*`` ids."""

from mtenvs.registry import (
    families,
    get_family,
    leave_one_out,
    mjcf,
    model,
    register,
    sample_task,
    tasks,
)
from mtenvs.spec import Family, Fold, Parameter, Task

__version__ = "0.1.0"
__all__ = [
    "Family",
    "Fold",
    "Parameter",
    "Task",
    "families",
    "get_family",
    "leave_one_out",
    "mjcf",
    "model",
    "register",
    "sample_task",
    "tasks",
]

register()
