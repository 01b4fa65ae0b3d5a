"""Resizing and decoding of images. The only module that needs Pillow, and only when it is called."""

from __future__ import annotations

import io
from types import ModuleType
from typing import Any

import numpy as np

from trainlet.errors import DataError

Size = tuple[int, int]  # height, width


def pillow() -> ModuleType:
    """The module PIL.Image. Raises DataError saying what to install."""
    try:
        from PIL import Image
    except ImportError:
        raise DataError("reading or resizing images needs Pillow: pip install pillow") from None
    return Image


def resize(pixels: np.ndarray, size: Size, through: Size) -> np.ndarray:
    """uint8 image (H, W, C) -> (*size, C): bilinear to `through`, then the middle of it."""
    image = pillow()
    if pixels.shape[-1] == 3:
        whole = _scaled(image.fromarray(np.ascontiguousarray(pixels)), through)
    else:
        planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
        whole = np.stack([_scaled(image.fromarray(plane), through) for plane in planes], axis=-1)
    return _middle(whole, size)


def decode(data: bytes, name: str, channels: int, size: Size, through: Size) -> np.ndarray:
    """uint8 image (*size, channels) of an encoded one, turned upright; 1 channel is grey, 3 are RGB.

    Raises DataError naming the image when it cannot be read.
    """
    image = pillow()
    from PIL import ImageOps

    try:
        with image.open(io.BytesIO(data)) as opened:
            upright = ImageOps.exif_transpose(opened).convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, EOFError, image.DecompressionBombError):
        raise DataError(f"image {name} cannot be read; remove or replace it") from None
    return _middle(_scaled(upright, through).reshape(*through, channels), size)


def _scaled(picture: Any, through: Size) -> np.ndarray:
    """Pixels of a PIL image at height, width `through`."""
    height, width = through
    if picture.size != (width, height):
        picture = picture.resize((width, height), pillow().Resampling.BILINEAR)
    return np.asarray(picture)


def _middle(pixels: np.ndarray, size: Size) -> np.ndarray:
    top, left = ((have - want) // 2 for have, want in zip(pixels.shape[:2], size, strict=True))
    return pixels[top : top + size[0], left : left + size[1]]
