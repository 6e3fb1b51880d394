"""From a request to what the tasks see, and from their picture back to what the caller gets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from .. import imaging
from ..errors import InvalidInput
from ..model_folder import Card
from ..requests import Request
from .start import Inputs


@dataclass(frozen=True)
class Prepared:
    """A request whose pictures are decoded and brought to the classifier's geometry."""

    request: Request
    inputs: Inputs
    photo: Image.Image | None = None
    drawn: Image.Image | None = None
    """The mask at the photo's size, or at the square's where it was drawn so."""

    def picture(self, pixels: Tensor) -> Image.Image:
        """What the caller gets for the result [3, size, size]: it, or the photo with it pasted back."""
        if not self.request.paste_back or self.photo is None:
            return imaging.to_image(pixels.numpy())
        mask = None if self.inputs.mask is None else self.inputs.mask.numpy()
        return imaging.paste_back(self.photo, pixels.numpy(), mask, self.request.fit, drawn=self.drawn)


def prepare(request: Request, card: Card) -> Prepared:
    """Raises InvalidInput for a picture, mask, box or size that cannot be used."""
    size = card.size if request.size is None else request.size
    if isinstance(size, bool) or not isinstance(size, int) or not card.min_size <= size <= card.max_size:
        raise InvalidInput("size", f"is {size}; {card.name} accepts {card.min_size} to {card.max_size} pixels.")
    seen = request.spec.input_size(size)
    if request.image is None:
        return Prepared(request, Inputs(size))
    photo = imaging.decode(request.image)
    picture = torch.from_numpy(imaging.to_square(photo, seen, request.fit))
    if request.box is not None:
        drawn = imaging.drawn_rectangle(request.box, photo.size)
    elif request.mask is not None:
        drawn = imaging.drawn_mask(request.mask, photo.size, size)
    else:
        return Prepared(request, Inputs(size, picture), photo)
    mask = torch.from_numpy(imaging.mask_square(drawn, photo.size, size, request.fit))
    return Prepared(request, Inputs(size, picture, mask), photo, drawn)
