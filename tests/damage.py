# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Files of annotations that are damaged in all ways, always in the same ones."""

import copy
import json
import random
import re
from collections.abc import Callable, Iterator

from training.importing.sources import Source


ODD = (
    None,
    True,
    -1,
    0,
    1.5,
    10**400,
    float("nan"),
    float("inf"),
    -1e300,
    "",
    "x",
    "1",
    [],
    [[]],
    {},
    {"x": 1},
    "../..",
)


def damage_bytes(content: bytes, seed: int) -> bytes:
    """Some bytes are overwritten, or the end is lost, or a part is doubled or left out."""
    chance = random.Random(seed)
    start, end = sorted(chance.randrange(len(content)) for _ in range(2))
    match chance.randrange(4):
        case 0:
            damaged = bytearray(content)
            for _ in range(chance.choice((1, 3, 10))):
                damaged[chance.randrange(len(damaged))] = chance.choice(b'\x00\xff{}[]<>&",;.-0179eE ax')
            return bytes(damaged)
        case 1:
            return content[:end]
        case 2:
            return content[:end] + content[start:]
        case _:
            return content[:start] + content[end:]


def damage_attributes(content: bytes, seed: int) -> bytes:
    """XML in which one or two attributes have another value or name."""
    chance = random.Random(seed)
    for _ in range(chance.choice((1, 1, 2))):
        attribute = chance.choice(list(re.finditer(rb'([\w.]+)="([^"]*)"', content)))
        name, value = attribute.groups()
        changed = chance.choice((*map(str, ODD), "1,2", "9" * 5000, "1;2", "0," * 9, "-5", "1e9")).encode()
        name, value = (b"lost", value) if chance.randrange(4) == 0 else (name, changed.replace(b'"', b""))
        content = content[: attribute.start()] + name + b'="' + value + b'"' + content[attribute.end() :]
    return content


def damage_values(content: object, seed: int) -> bytes:
    """JSON in which one or two of the values are another one, or missing."""
    chance = random.Random(seed)
    content = copy.deepcopy(content)
    for _ in range(chance.choice((1, 1, 2))):
        places = list(_find_places(content))
        if not places:
            break
        part, key = chance.choice(places)
        if chance.randrange(4) == 0:
            del part[key]
        else:
            part[key] = copy.deepcopy(chance.choice(ODD))
    return json.dumps(content).encode()


def _find_places(content: object) -> Iterator[tuple[dict | list, str | int]]:
    keys = content.keys() if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield content, key
        yield from _find_places(content[key])


def survives(find: Callable[[], Source | None], size: tuple[int, int]) -> bool:
    """
    Whether a reader and what it gives to draw end well, or in an error of the file that is told.

    Returns:
        `bool`: whether anything could be drawn.
    """
    try:
        source = find()
        drawings = [item.draw(size) for item in source.items] if source is not None else []
    except (ValueError, OSError) as error:
        assert str(error)
        return False
    assert all(drawing.keys.shape == size for drawing in drawings)
    return bool(drawings)
