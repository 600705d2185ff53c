# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
What files of MATLAB hold, of versions 5 to 7.

SciPy reads them too, but not those that others made: a byte that was changed ends its process with a segmentation
fault, in 1.17.1 about once in 60 files that were changed at random.

Source: MATLAB, "MAT-File Format", the chapter on level 5.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


HEADER_BYTES = 128
MAXIMUM_BYTES = 2**29  # of what is uncompressed
MAXIMUM_DEPTH = 8  # of structs and cells in each other
MAXIMUM_LEAVES = 10**5
BYTE_ORDERS = {b"IM": "<", b"MI": ">"}
# Types of elements.
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
# Classes of arrays.
CELL, STRUCT, OBJECT, CHARACTERS = 1, 2, 3, 4
NUMERIC = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
IS_LOGICAL = 0x200


class _Element(NamedTuple):
    kind: int
    data: memoryview


def read_mat(content: bytes) -> dict[str, np.ndarray | str]:
    """
    All arrays of numbers and all texts that a file of MATLAB holds, those in structs and cells too, by what MATLAB
    calls them, such as "groundTruth{1}.Segmentation". What is of another kind is left out.

    Raises:
        ValueError: for a file of another version, or a broken or too large one; its message does not name the file.
    """
    order = BYTE_ORDERS.get(content[126:128])
    if order is None or len(content) < HEADER_BYTES:
        raise ValueError("it does not begin as one of MATLAB 5 to 7")
    version = struct.unpack_from(f"{order}H", content, 124)[0]
    if version == 0x0200:
        raise ValueError(
            "it is of MATLAB 7.3, which is not read. Save it anew by save(..., '-v7'), or the mask as PNG"
        )
    found: dict[str, np.ndarray | str] = {}
    remaining = MAXIMUM_BYTES
    for element in _elements(memoryview(content)[HEADER_BYTES:], order):
        if element.kind == COMPRESSED:
            data = _decompress(element.data, remaining)
            remaining -= len(data)
            element = next(_elements(memoryview(data), order), element)
        if element.kind == MATRIX:
            for name, leaf in _leaves(element.data, order):
                found[name] = leaf
                if len(found) > MAXIMUM_LEAVES:
                    raise ValueError(f"it holds more than {MAXIMUM_LEAVES:,} arrays")
    return found


def _decompress(data: memoryview, maximum: int) -> bytes:
    try:
        content = zlib.decompressobj().decompress(data, maximum + 1)
    except zlib.error as error:
        raise ValueError(f"it is broken: {error}") from error
    if len(content) > maximum:
        raise ValueError(f"it holds more than {MAXIMUM_BYTES / 2**20:.0f} MB")
    return content


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    """The elements that follow each other: a type, a length, and as many bytes, filled up to a multiple of 8."""
    place = 0
    while place + 8 <= len(data):
        kind, length = struct.unpack_from(f"{order}II", data, place)
        start, filling = place + 8, -length % 8
        if kind >> 16:  # up to 4 bytes stand in the place of the length, which stands beside the type
            kind, length = kind & 0xFFFF, kind >> 16
            start, filling = place + 4, 4 - length
        if start + length > len(data) or filling < 0:
            raise ValueError("it is broken, or was cut off")
        yield _Element(kind, data[start : start + length])
        place = start + length + (0 if kind == COMPRESSED else filling)


def _leaves(data: memoryview, order: str, name: str | None = None, depth: int = 0) -> Iterator:
    """Arrays of numbers and texts of one array, with their names; `name` is that of an array inside another one."""
    if depth > MAXIMUM_DEPTH:
        raise ValueError(f"it holds more than {MAXIMUM_DEPTH} arrays inside each other")
    if not len(data):  # an empty array, as of a field that was never set
        return
    elements = _elements(data, order)
    flags = _numbers(_next(elements), order)
    shape = tuple(_numbers(_next(elements), order).tolist())
    own_name = bytes(_next(elements).data).decode("latin-1")
    name = own_name if name is None else name
    if not flags.size or len(shape) < 2 or min(shape) < 0:
        raise ValueError("it is broken: an array without a shape")
    kind, size = int(flags[0]) & 0xFF, math.prod(shape)
    if kind in NUMERIC:
        yield name, _array(_next(elements), order, shape, bool if int(flags[0]) & IS_LOGICAL else NUMERIC[kind])
    elif kind == CHARACTERS:
        yield name, _text(_next(elements), order)
    elif kind == CELL:
        for index in range(1, size + 1):
            yield from _leaves(_next(elements).data, order, f"{name}{{{index}}}", depth + 1)
    elif kind in (STRUCT, OBJECT):
        if kind == OBJECT:
            _next(elements)  # the name of its class
        titles = _titles(elements, order)
        for index in range(1, size + 1 if titles else 1):
            # MATLAB leaves the number of an only struct out.
            called = name if size == 1 else f"{name}({index})"
            for title in titles:
                yield from _leaves(_next(elements).data, order, f"{called}.{title}", depth + 1)


def _next(elements: Iterator[_Element]) -> _Element:
    element = next(elements, None)
    if element is None:
        raise ValueError("it is broken, or was cut off")
    return element


def _numbers(element: _Element, order: str) -> np.ndarray:
    if element.kind not in NUMBERS:
        raise ValueError(f"it is broken: an element of type {element.kind} stands where numbers should")
    dtype = np.dtype(f"{order}{NUMBERS[element.kind]}")
    if len(element.data) % dtype.itemsize:
        raise ValueError("it is broken: a part of a number")
    return np.frombuffer(element.data, dtype)


def _array(element: _Element, order: str, shape: tuple[int, ...], dtype: str | type) -> np.ndarray:
    numbers = _numbers(element, order)  # of a smaller type than the array's, where that is enough
    if numbers.size != math.prod(shape):
        raise ValueError(f"it is broken: {numbers.size} numbers for an array of the shape {shape}")
    return numbers.astype(dtype).reshape(shape, order="F")


def _text(element: _Element, order: str) -> str:
    encoding = ENCODINGS.get(element.kind, "latin-1")
    suffix = {"<": "-le", ">": "-be"}[order] if encoding in ("utf-16", "utf-32") else ""
    return bytes(element.data).decode(encoding + suffix, errors="replace")


def _titles(elements: Iterator[_Element], order: str) -> list[str]:
    """The names of a struct's fields, each filled up with zeros to one length."""
    lengths = _numbers(_next(elements), order)
    texts = bytes(_next(elements).data)
    length = int(lengths[0]) if lengths.size else 0
    if length <= 0:
        raise ValueError("it is broken: fields without names")
    parts = [texts[place : place + length] for place in range(0, len(texts), length)]
    return [part.partition(b"\0")[0].decode("latin-1") for part in parts]
