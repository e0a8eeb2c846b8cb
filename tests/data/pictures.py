"""Pictures for tests, made here."""

import io

import numpy as np
from PIL import Image


def picture(number: int, image_format: str = "PNG") -> bytes:
    """A picture of noise that depends on the number."""
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format)
    return buffer.getvalue()
