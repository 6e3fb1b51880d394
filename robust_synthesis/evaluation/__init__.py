"""What a classifier and its pictures are worth, in numbers: one file per part, each with a `measure`.

    accuracy           clean, and robust under AutoAttack
    judge              an independent classifier on real pictures; the other parts ask it
    generation         judged, FID, diversity, against a standard classifier
    inpainting         holes in test pictures, against mean filling and OpenCV
    super_resolution   test pictures reduced by 4, against interpolation
    robustness_gap     the smallest change that flips a robust and a standard classifier

`evaluate` runs them all.
"""

from .evaluate import evaluate
from .options import IMAGES, EvaluationOptions
from .report import Evaluation

__all__ = ["IMAGES", "Evaluation", "EvaluationOptions", "evaluate"]
