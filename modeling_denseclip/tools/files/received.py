# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
A photograph that somebody sent, who may be anybody: its bytes are counted, then its pixels, and then it is decoded.

All servers read photographs here. `training.push` copies this text, behind that of `photographs.py`, into what runs on
an endpoint.
"""

from io import BytesIO

import PIL.Image

from .photographs import IMAGE_SUFFIXES, decode_photograph, decoded_size, describe_stranger, open_photograph


MAXIMUM_BYTES = 20 * 2**20  # of a file
MAXIMUM_PIXELS = 24_000_000  # of a photograph, as its header says before it is decoded
TOO_MANY_BYTES = f"This file has {{megabytes}} MB; {MAXIMUM_BYTES // 2**20} are the limit."
PIXEL_LIMIT = f"{MAXIMUM_PIXELS // 10**6} megapixels are the limit: make it smaller."
TOO_MANY_PIXELS = f"This picture has {{width}} x {{height}} pixels; {PIXEL_LIMIT}"
UNREADABLE = "This file cannot be read as a picture: {reason}. Take a photograph ({kinds})."
TOO_NARROW = (
    "A photograph of {height} x {width} pixels (height x width) is {seen_height} x {seen_width} as the model sees it,"
    " and both sides must have at least {least}."
)
MEMORY_ADVICE = "This photograph needs more memory than there is: make it smaller."
DAMAGED = "it is damaged, or something else by the name of one"


class TooLargeError(ValueError):
    """More bytes or pixels than a server takes. HTTP has the status 413 for it."""


def read_received(data: bytes) -> PIL.Image.Image:
    """
    The upright photograph, RGB, of the bytes of its file.

    Raises:
        TooLargeError: for more than `MAXIMUM_BYTES` or `MAXIMUM_PIXELS`, of which none is decoded then.
        ValueError: for what is no photograph, or broken.
    """
    if len(data) > MAXIMUM_BYTES:
        raise TooLargeError(TOO_MANY_BYTES.format(megabytes=f"{len(data) / 2**20:.1f}"))
    try:
        with open_photograph(BytesIO(data), "This picture") as file:
            check_pixels(*decoded_size(file))
            return decode_photograph(file, "This picture")
    except OSError as error:
        if isinstance(error.__cause__, PIL.Image.DecompressionBombError):
            reason = str(error.__cause__)
            if "pixels" in reason:
                raise TooLargeError(f"This picture is too large; {PIXEL_LIMIT}") from error
            raise ValueError(f"This picture cannot be read: {reason}.") from error
        kinds = ", ".join(suffix[1:].upper() for suffix in IMAGE_SUFFIXES)
        stranger = describe_stranger(data[:512])
        reason = f"it is {stranger}" if stranger else DAMAGED
        raise ValueError(UNREADABLE.format(reason=reason, kinds=kinds)) from error


def check_pixels(width: int, height: int) -> None:
    """
    Raises:
        TooLargeError: for a picture of more than `MAXIMUM_PIXELS`.
    """
    if width * height > MAXIMUM_PIXELS:
        raise TooLargeError(TOO_MANY_PIXELS.format(width=width, height=height))


def check_seen_size(size: tuple[int, int], seen: tuple[int, int], least: int) -> None:
    """
    Check a photograph by its height and width, and by those that the model sees of it.

    Raises:
        ValueError: where a side that is seen has fewer pixels than `least`.
    """
    if min(seen) < least:
        (height, width), (seen_height, seen_width) = size, seen
        raise ValueError(
            TOO_NARROW.format(height=height, width=width, seen_height=seen_height, seen_width=seen_width, least=least)
        )
