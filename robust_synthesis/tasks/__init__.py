"""Every task as data: a file each decides where a job starts and what its objective has.

The engine knows nothing of tasks; they are looked up by the type of their spec.
"""

from .job import Job, input_size, make_jobs
from .start import Inputs

__all__ = ["Inputs", "Job", "input_size", "make_jobs"]
