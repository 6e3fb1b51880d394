"""Every task as data: a file each decides where a job starts and what its objective has.

The engine knows nothing of tasks; they are looked up by the type of their spec.
"""

from .finish import class_seen, measures, ran_with
from .job import Job, make_job, make_jobs
from .prepare import Prepared, prepare
from .start import Inputs

__all__ = ["Inputs", "Job", "Prepared", "class_seen", "make_job", "make_jobs", "measures", "prepare", "ran_with"]
