"""Every task as data: a file each decides where a job starts and what its objective has.

The engine knows nothing of tasks; they are looked up by the type of their spec.
"""

from .finish import measures, predicted_class, ran_with
from .job import Job, make_job, make_jobs
from .prepare import Prepared, prepare
from .start import Inputs

__all__ = ["Inputs", "Job", "Prepared", "make_job", "make_jobs", "measures", "predicted_class", "prepare", "ran_with"]
