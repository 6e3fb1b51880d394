"""What a classifier and its pictures are worth, in numbers and pictures.

`evaluate` runs the parts that `given` lists; `parts/` has a file for each:

    accuracy             clean, and robust under AutoAttack
    generation           judged, FID, diversity, against a standard classifier
    class_maximization   test photographs driven to another class
    translation          test photographs driven to the other of two domains, both ways
    inpainting           holes in test pictures, against mean filling and OpenCV
    super_resolution     test pictures reduced by 4, against interpolation
    sketches             from six crude drawings
    feature_painting     three edits of a photograph, one on another
    robustness_gap       the smallest change that flips a robust and a standard classifier

`judge` measures an independent classifier on real pictures, and looks at those that are made. `record` keeps what was found,
`report/` tells it: in the headline of a card, in lines for a terminal, and as a page of HTML.
"""

from .evaluate import evaluate
from .options import IMAGES, EvaluationOptions
from .record import Evaluation

__all__ = ["IMAGES", "Evaluation", "EvaluationOptions", "evaluate"]
