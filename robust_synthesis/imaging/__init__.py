"""Pictures between the outside and the engine; needs no torch.

    decoding    any bytes, file, image or array to an RGB image, safely
    geometry    a photo and its mask to the classifier's square, and an edited square back into the photo
    encoding    arrays to images, images to bytes, files and animations

Every function raises InvalidInput naming the field.
"""

from .decoding import MAX_BYTES, MAX_PIXELS, Encoded, Header, Source, decode, header
from .encoding import animated, animation, check_suffix, encode, enlarge, save, to_file, to_image
from .geometry import FITS, box_numbers, drawn_mask, drawn_rectangle, mask_square, paste_back, squared, to_square

__all__ = [
    "FITS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "Encoded",
    "Header",
    "Source",
    "animated",
    "animation",
    "box_numbers",
    "check_suffix",
    "decode",
    "drawn_mask",
    "drawn_rectangle",
    "encode",
    "enlarge",
    "header",
    "mask_square",
    "paste_back",
    "save",
    "squared",
    "to_file",
    "to_image",
    "to_square",
]
