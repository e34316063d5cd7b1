"""Engines: whatever can run the jobs of a batch.

An engine takes picklable jobs and the description of the work, and gives outcomes in any order. `LocalEngine` works
in this process or in several; `RayEngine` spreads the jobs over machines. Nothing that uses an engine has to know
which one it is.
"""

from velatura.engines.local import LocalEngine
from velatura.engines.ray_engine import RayEngine
from velatura.engines.work import Engine, Job, Outcome, WorkSpec, do_job, file_sha256

__all__ = ["Engine", "Job", "LocalEngine", "Outcome", "RayEngine", "WorkSpec", "do_job", "file_sha256"]
