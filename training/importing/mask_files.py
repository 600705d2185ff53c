# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What one file of a mask stores: an image, or a matrix of NumPy, MATLAB or plain text."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL.Image

from modeling_denseclip.tools.files.photographs import (
    IMAGE_SUFFIXES,
    naming_errors,
    open_file,
    open_image,
    read_orientation,
    turn_upright,
)

from ..data.findings import COLOUR_MODES
from .mat_files import MAXIMUM_BYTES, read_mat
from .sources import UNCOVERED


MATRIX_SUFFIXES = (".npy", ".mat", ".txt", ".csv")
MASK_FORMATS = ("GIF",)  # beyond those of photographs; a GIF holds exact indices
ONLY_MASK_SUFFIXES = (*MATRIX_SUFFIXES, ".gif")
MASK_FILE_SUFFIXES = (*IMAGE_SUFFIXES, *ONLY_MASK_SUFFIXES)
VALUE_MODES = ("1", "L", "P", "I", "F", "LA")  # and those that begin with "I;16"
MAXIMUM_TEXT_BYTES = 2**27
KEY_RANGE = np.iinfo(np.int32)


@dataclass
class MaskValues:
    """
    What a mask stores.

    Attributes:
        values (`numpy.ndarray`): of shape (height, width) and type int32, the stored numbers, `UNCOVERED` where there
            is none; or of shape (height, width, 3) and type uint8, the stored colours.
        alpha (`numpy.ndarray`, *optional*): the opacity, of shape (height, width) and type uint8, where an image has
            an alpha channel that is not 255 everywhere.
        palette (`dict[int, int]`): of a palette image, 0xRRGGBB by index, or `UNCOVERED` for a transparent entry.
        bits (`int`): of a number, or of one channel of a colour; 0 for a matrix.
        is_lossy (`bool`): whether its format changes values: JPEG, or WebP that is not lossless.
        form (`str`): what it is, as a report says it, such as "palette PNG of 8 bits".
        names (`dict[int, str]`): names of the values, where the file has them.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    palette: dict[int, int] = field(default_factory=dict)
    bits: int = 0
    is_lossy: bool = False
    form: str = ""
    names: dict[int, str] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.values.shape[:2]
        return height, width

    @property
    def covered(self) -> np.ndarray | None:
        """Where it is not fully transparent, of shape (height, width) and type bool; `None` if that is everywhere."""
        return None if self.alpha is None else self.alpha > 0


def read_values(path: Path, mat_key: str | None = None) -> MaskValues:
    """
    Read a mask of any form.

    Numbers are those that the file stores: 0 and 1 for 1 bit, and of 2 and 4 bits not those that readers spread over 0
    to 255. The turning that EXIF asks for is done, as for photographs.

    Args:
        mat_key (`str`, *optional*): which array of a .mat file is the mask, such as "groundTruth{1}.Segmentation". By
            default the only one that may be.

    Raises:
        OSError: for a file that is not there, or a broken image.
        ValueError: for what holds neither numbers nor colours, or in such a way that they cannot be told.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _from_matrix(_read_npy(path), path, "NumPy array")
    if suffix == ".mat":
        return _read_mat(path, mat_key)
    if suffix in (".txt", ".csv"):
        return _from_matrix(_read_text(path), path, "text matrix")
    return _read_image(path)


# -------------------------------------------------------------------------------------------------------------- images


def _read_image(path: Path) -> MaskValues:
    source = f"The mask {path}"
    with open_image(path, source, MASK_FORMATS) as image:
        stored = _stored_mode(image)
        is_lossy = image.format in ("JPEG", "MPO") or (image.format == "WEBP" and _is_lossy_webp(path))
        name, mode = "JPEG" if image.format == "MPO" else image.format, image.mode
        _refuse_mode(mode, stored, name, source)
        with naming_errors(source):
            upright = turn_upright(image, read_orientation(image))
            pixels = np.asarray(upright)
            palette = _read_palette(upright) if mode == "P" else {}
    bits = _stored_bits(mode, stored)
    if mode in COLOUR_MODES:
        values, alpha = pixels[..., :3], pixels[..., 3] if mode == "RGBA" else None
        form = f"{'lossy' if is_lossy else 'colour'} {name}"
    else:
        alpha = pixels[..., 1] if mode == "LA" else None
        values = _as_keys(pixels[..., 0] if mode == "LA" else pixels, source)
        if mode == "L" and bits < 8:
            values = values // (255 // (2**bits - 1))
        kind = "lossy" if is_lossy else "palette" if mode == "P" else "grey"
        form = f"{kind} {name} of {bits} bit{'s' if bits > 1 else ''}"
    if alpha is not None and (alpha == 255).all():
        alpha = None
    return MaskValues(np.ascontiguousarray(values), alpha, palette, bits, is_lossy, form)


def _stored_mode(image: PIL.Image.Image) -> str:
    """How Pillow calls the pixels as they lie in the file, such as "L;4" or "RGB;16B"; its own mode if not known."""
    if not image.tile:
        return image.mode
    arguments = image.tile[0][3]
    stored = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return stored if isinstance(stored, str) else image.mode


def _stored_bits(mode: str, stored: str) -> int:
    if mode == "1":
        return 1
    if mode in ("L", "P") and stored[2:3].isdigit():
        return int(stored[2])
    return 16 if mode.startswith("I;16") else 32 if mode in ("I", "F") else 8


def _refuse_mode(mode: str, stored: str, name: str, source: str) -> None:
    if mode not in (*COLOUR_MODES, *VALUE_MODES) and not mode.startswith("I;16"):
        raise ValueError(f"{source} has the mode {mode}, which holds neither ids nor colours. Save it as PNG.")
    if ";16" in stored and not mode.startswith("I"):
        raise ValueError(
            f"{source} has 16 bits for each of several channels, of which readers keep the upper 8, so that ids become"
            " 0. Save it with 8 bits, or with 16 bits and one channel."
        )
    if mode == "L" and "I" in stored.partition(";")[2]:
        raise ValueError(
            f"{source} is a greyscale {name} in which 0 is white. Readers invert it, so that ids change: save the ids"
            " as PNG."
        )


def _read_palette(image: PIL.Image.Image) -> dict[int, int]:
    channels = np.array(image.getpalette("RGB"), np.int32).reshape(-1, 3)
    palette = dict(enumerate((channels @ (2**16, 2**8, 1)).tolist()))
    transparency = image.info.get("transparency")
    if isinstance(transparency, int):
        palette[transparency] = UNCOVERED
    elif isinstance(transparency, bytes):
        palette.update({index: UNCOVERED for index, alpha in enumerate(transparency) if alpha == 0})
    return palette


def _is_lossy_webp(path: Path) -> bool:
    """Whether a chunk of a WebP file has lossy pixels; those without a loss are called "VP8L"."""
    with open_file(path) as file:
        content = file.read()
    place = 12  # behind "RIFF", the length and "WEBP"
    while place + 8 <= len(content):
        name, length = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        if name in (b"VP8 ", b"ANMF"):
            return True
        place += 8 + length + length % 2
    return False


# ------------------------------------------------------------------------------------------------------------ matrices


def _from_matrix(matrix: np.ndarray, path: Path, form: str) -> MaskValues:
    source = f"The mask {path}"
    kind = matrix.dtype.kind
    if kind not in "biuf":
        raise ValueError(
            f"{source} holds values of type {matrix.dtype}, no numbers. A mask holds an id for each pixel."
        )
    shape = matrix.shape
    if matrix.ndim == 3 and 1 in (shape[0], shape[2]):
        matrix = matrix[0] if shape[0] == 1 else matrix[..., 0]
    elif matrix.ndim == 3 and shape[2] == 3 and matrix.dtype == np.uint8:
        _refuse_size(shape, source)
        return MaskValues(np.array(matrix), form=f"{form} of colours")
    if matrix.ndim != 2:
        raise ValueError(
            f"{source} has the shape {shape}. A mask has (height, width) of ids, or (height, width, 3) of colours with"
            " type uint8."
        )
    _refuse_size(matrix.shape, source)
    return MaskValues(_as_keys(np.array(matrix), source), form=form)


def _refuse_size(shape: tuple[int, ...], source: str) -> None:
    height, width = shape[:2]
    limit = PIL.Image.MAX_IMAGE_PIXELS
    if height * width == 0 or (limit is not None and height * width > 2 * limit):
        raise ValueError(f"{source} has {width:,} x {height:,} pixels (width x height): none, or too many to be read.")


def _as_keys(numbers: np.ndarray, source: str) -> np.ndarray:
    """Numbers of any type as int32, of which what is no number is `UNCOVERED`."""
    if numbers.dtype.kind == "f":
        missing = np.isnan(numbers)
        numbers = np.where(missing, UNCOVERED, numbers)
        broken = numbers != np.floor(numbers)  # infinities are found by their size
        if broken.any():
            raise ValueError(
                f"{source} holds {numbers[broken][0]:.4g}. Ids are whole numbers: these are measurements or"
                " probabilities. Save, for each pixel, the id of its class."
            )
    if numbers.size and numbers.dtype.itemsize >= 4 and numbers.dtype.kind != "b":
        lowest, highest = numbers.min(), numbers.max()
        if lowest < KEY_RANGE.min or highest > KEY_RANGE.max:
            raise ValueError(f"{source} holds {highest if highest > KEY_RANGE.max else lowest}, which is no id.")
    return numbers.astype(np.int32)


def _read_npy(path: Path) -> np.ndarray:
    with open_file(path):  # refuses what is no file
        pass
    try:
        # Mapped, so that a header that tells of more than the file holds takes no memory.
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except MemoryError as error:
        raise MemoryError(f"The mask {path} needs more memory than there is to be read") from error
    except Exception as error:  # a broken header may raise SyntaxError, TypeError, OverflowError and others
        raise ValueError(f"The mask {path} is no array of NumPy that can be read: {error}") from error


def _read_text(path: Path) -> np.ndarray:
    """A matrix of numbers, parted by spaces, commas, semicolons or tabs; a line for each row of pixels."""
    with open_file(path) as file:
        content = file.read(MAXIMUM_TEXT_BYTES + 1)
    if len(content) > MAXIMUM_TEXT_BYTES:
        raise ValueError(f"The mask {path} is a text of more than {MAXIMUM_TEXT_BYTES:,} bytes. Save it as PNG.")
    try:
        text = content.decode("utf-8-sig").translate({ord(mark): " " for mark in ",;\t"})
        if not text.strip():
            raise ValueError("it is empty")
        return np.loadtxt(text.splitlines(), np.float64, ndmin=2, comments=None)
    except ValueError as error:
        raise ValueError(f"The mask {path} is no matrix of numbers: {error}") from error


def _read_mat(path: Path, mat_key: str | None) -> MaskValues:
    with open_file(path) as file:
        content = file.read(MAXIMUM_BYTES + 1)
    try:
        if len(content) > MAXIMUM_BYTES:
            raise ValueError(f"it has more than {MAXIMUM_BYTES / 2**20:.0f} MB")
        leaves = read_mat(content)
    except ValueError as error:
        raise ValueError(f"The mask {path} is no file of MATLAB that can be read: {error}.") from error
    arrays = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, np.ndarray) and _may_be_mask(leaf)}
    key = _choose_array(arrays, mat_key, path)
    mask = _from_matrix(arrays[key], path, f"MATLAB array {key}")
    # A cell array of names, which name the values from 1, as of the SIFT Flow data set.
    texts = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, str) and name.startswith("names{")}
    mask.names = dict(enumerate(texts.values(), start=1))
    return mask


def _choose_array(arrays: dict[str, np.ndarray], mat_key: str | None, path: Path) -> str:
    listed = ", ".join(f"{name} {array.shape[0]} x {array.shape[1]} {array.dtype}" for name, array in arrays.items())
    if mat_key is not None and mat_key not in arrays:
        raise ValueError(f"The mask {path} holds no array {mat_key}; it holds {listed or 'none that may be a mask'}.")
    if not arrays:
        raise ValueError(f"The mask {path} holds no matrix of whole numbers, which a mask is.")
    if mat_key is None and len(arrays) > 1:
        raise ValueError(
            f"The mask {path} holds several arrays that may be the mask: {listed}. Choose one: --mat_key"
            f" '{next(iter(arrays))}'."
        )
    return next(iter(arrays)) if mat_key is None else mat_key


def _may_be_mask(array: np.ndarray) -> bool:
    if array.ndim != 2 or min(array.shape) < 2 or array.dtype.kind not in "biuf":
        return False
    if array.dtype.kind != "f":
        return True
    numbers = array[~np.isnan(array)]
    return bool((numbers == np.floor(numbers)).all())
