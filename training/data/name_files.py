# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
The forms in which files name classes, all of which become one table.

A file is JSON or YAML, a table of columns with or without a line of their titles, or one name per line. Lines with
numbers can be read in two ways, "2 wheeler" as a name or as the name of class 2, for which there is one rule:

- Three numbers, or a colour such as "#ff0000", before or behind the name of each line are the colour of the class.
- One number on each line is its class where a mark other than a space parts all of them from the names, "7: road" or
  "road,7"; or where they count on by 1 from 0 or 1, "0 land" and "1 lake", and the names without them differ.
- Otherwise lines are names as they are. Where the numbers of all lines rise to at most 255 and do not count on, as in
  "2 wheeler" and "3 phase motor", both can be meant, which is an error.
"""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from modeling_denseclip.tools.files.loading import parse_yaml


# Longer than any list of classes; the annotations of a whole data set can be longer.
MAXIMUM_LETTERS_OF_FILE = 2**22
MAXIMUM_LETTERS_OF_LINE = 2**12
# Titles of columns and fields, without case, spaces and marks; those that are wanted first come first.
NAME_TITLES = (
    "readable", "name", "names", "classname", "labelname", "class", "classes", "label", "labels", "title", "category",
)  # fmt: skip
ID_TITLES = (
    "id", "ids", "idx", "index", "value", "pixelvalue", "pixel", "classid", "labelid", "classindex", "labelindex",
    "pngindex", "grayvalue", "greyvalue", "number", "trainid", "class", "label",
)  # fmt: skip
COLOUR_TITLES = (
    "color", "colour", "rgb", "colorrgb", "rgbcolor", "rgbvalue", "rgbvalues", "colorhex", "hexcolor", "hex",
    "colorhexcode", "hexcode", "classcolor", "labelcolor",
)  # fmt: skip
CHANNEL_TITLES = (("r", "red"), ("g", "green"), ("b", "blue"))
KNOWN_TITLES = {*NAME_TITLES, *ID_TITLES, *COLOUR_TITLES, *(title for titles in CHANNEL_TITLES for title in titles)}
# Fields of a JSON or YAML file under which its classes stand.
FIELDS_OF_CLASSES = ("id2label", "label2id", "names", "class_names", "classes", "labels", "categories", "label_names")

CVAT_LINE = re.compile(r"([^:]+):(\d+,\d+,\d+)?:([^:]*):([^:]*)")
# The parts of a line: a quoted text, a colour, or what stands between spaces and marks.
PART = re.compile(r'"[^"]*"|[(\[][\d\s,;]*[)\]]|#[0-9a-fA-F]{6}(?:[0-9a-fA-F]{2})?(?![^\s,;:|=])|[^\s,;:|=]+')
MARKS = " \t,;:|="
NUMBER = re.compile(r"[-+]?[0-9]{1,9}")
NUMBERED = re.compile(r"([0-9]{1,9})[.)]")  # "1." or "1)", at the beginning of a line


class NamedClass(NamedTuple):
    """
    A class as a file names it.

    Attributes:
        name (`str`): as it is written; empty where a line of names is.
        id (`int`): the number that the file gives it, or its place in the file, from 0.
        colour (`int`, *optional*): 0xRRGGBB, where the file tells it.
        place (`str`): where it stands, such as "on line 3".
    """

    name: str
    id: int
    colour: int | None
    place: str


@dataclass(frozen=True)
class NameTable:
    """
    The classes that a file names, in its order.

    Attributes:
        classes (`list[NamedClass]`): the classes.
        ids_are_written (`bool`): whether the file numbers them; otherwise ids are places in the file.
    """

    classes: list[NamedClass]
    ids_are_written: bool


class _Row(NamedTuple):
    """A class before the whole file is understood; what is `None` the file does not tell."""

    name: str
    id: int | None
    colour: int | None
    place: str


def parse_names(text: str, source: str, suffix: str = ".txt") -> NameTable:
    """
    Understand a file that names classes.

    Args:
        text (`str`): what it holds.
        source (`str`): what an error calls it.
        suffix (`str`, *optional*, defaults to `".txt"`): of its name. JSON is known by its brackets too.

    Raises:
        ValueError: for a file that names no classes, that can be read in two ways, or that gives two classes one id or
            one colour. Names themselves are not checked.
    """
    if len(text) > MAXIMUM_LETTERS_OF_FILE:
        raise ValueError(f"{source} has {len(text):,} letters, more than any list of classes: it is another file.")
    content = text.strip()
    if not content:
        raise ValueError(f"{source} is empty. It names the classes, one per line in the order of ids.")
    is_bracketed = content[0] + content[-1] in ("{}", "[]") and not re.match(r"\[[^\[\]\n,\"]*\]\s*\n", content)
    if suffix in (".yaml", ".yml"):
        rows = _read_tree(parse_yaml(text, source), source)
    elif suffix == ".json" or is_bracketed:
        rows = _read_tree(_parse_json(content, source), source)
    else:
        rows = _read_lines(text, source, suffix)
    return _to_table(rows, source)


def read_colour(value: Any) -> int | None:
    """
    A colour as 0xRRGGBB: "#rrggbb" or "#rrggbbaa", and three numbers in a list or in a text such as "(64, 128, 0)",
    "rgb(64,128,0)" or "64 128 0", of which a fourth is alpha. `None` for what is no colour.
    """
    if isinstance(value, str):
        text = value.strip()
        if found := re.fullmatch(r"(?:#|0[xX])([0-9a-fA-F]{6})(?:[0-9a-fA-F]{2})?", text):
            return int(found[1], 16)
        found = re.fullmatch(r"(?:rgba?)?[(\[]?\s*((?:[0-9]{1,3}[\s,;]+){2,3}[0-9]{1,3})\s*[)\]]?", text)
        value = [int(number) for number in re.findall(r"[0-9]+", found[1])] if found else None
    if not isinstance(value, list | tuple) or len(value) not in (3, 4):
        return None
    if not all(
        isinstance(channel, int) and not isinstance(channel, bool) and 0 <= channel <= 255 for channel in value
    ):
        return None
    red, green, blue = value[:3]
    return red << 16 | green << 8 | blue


def format_colour(colour: int) -> str:
    """A colour as people and programs write it: "#ff004d (255, 0, 77)"."""
    return f"#{colour:06x} ({colour >> 16}, {colour >> 8 & 255}, {colour & 255})"


def _to_table(rows: Sequence[_Row], source: str) -> NameTable:
    written = [row.id is not None for row in rows]
    if any(written) and not all(written):
        raise ValueError(f"{source} gives no number to {rows[written.index(False)].name!r}, but one to others.")
    coloured = [row.colour is not None for row in rows]
    if any(coloured) and not all(coloured):
        raise ValueError(f"{source} gives no colour to {rows[coloured.index(False)].name!r}, but one to others.")
    # labelme writes this word into the first of its lines of names: it has the id -1, and the next line 0.
    is_labelme = bool(rows) and rows[0].name == "__ignore__" and not any(coloured)
    first = -1 if is_labelme else 0
    classes = [
        NamedClass(row.name, place if row.id is None else row.id, row.colour, row.place)
        for place, row in enumerate(rows, start=first)
    ]
    if not classes:
        raise ValueError(f"{source} names no class. It names them one per line, in the order of ids.")
    _refuse_repeated(((entry.id, entry) for entry in classes), "number", source)
    _refuse_repeated(((format_colour(e.colour), e) for e in classes if e.colour is not None), "colour", source)
    return NameTable(classes, all(written))


def _refuse_repeated(keys: Iterable[tuple[Any, NamedClass]], kind: str, source: str) -> None:
    known: dict[Any, NamedClass] = {}
    for key, entry in keys:
        other = known.setdefault(key, entry)
        if other is not entry:
            raise ValueError(
                f"{source} gives the {kind} {key} to {other.name!r} and, {entry.place}, to {entry.name!r}: nothing"
                " could tell them apart. Correct one, or remove it."
            )


# --------------------------------------------------------------------------------------------------------- JSON, YAML


def _parse_json(text: str, source: str) -> Any:
    def refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if key in content:
                raise ValueError(f"{key!r} stands in it twice")
            content[key] = value
        return content

    try:
        return json.loads(text, object_pairs_hook=refuse_repeated)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{source} begins and ends like JSON, and is none: {error}. Correct it, or write one name per line."
        ) from error


def _read_tree(tree: Any, source: str) -> list[_Row]:
    """Classes of what JSON or YAML hold."""
    if isinstance(tree, dict):
        fields = [field for field in FIELDS_OF_CLASSES if isinstance(tree.get(field), list | dict)]
        if fields:
            rows = _read_tree(tree[fields[0]], f"{source}, {fields[0]!r}")
            for field in fields[1:]:
                others = _read_tree(tree[field], f"{source}, {field!r}")
                if sorted(_keys(rows)) != sorted(_keys(others)):
                    raise ValueError(
                        f"{source} names classes under {fields[0]!r} and, otherwise, under {field!r}. Remove one."
                    )
            return rows
        return _read_mapping(tree, source)
    if isinstance(tree, list) and tree and all(isinstance(entry, dict) for entry in tree):
        titles = list(dict.fromkeys(str(title) for entry in tree for title in entry))
        lines = [[{str(key): value for key, value in entry.items()}.get(title) for title in titles] for entry in tree]
        return _read_columns(titles, lines, [f"in entry {index}" for index in range(len(tree))], source)
    if isinstance(tree, list):
        return [_Row(_as_name(entry, source), None, None, f"in entry {index}") for index, entry in enumerate(tree)]
    raise ValueError(
        f"{source} holds {type(tree).__name__}, no names of classes. Write a list of names, or numbers with names."
    )


def _keys(rows: Sequence[_Row]) -> list[tuple[int, str]]:
    return [(place if row.id is None else row.id, row.name) for place, row in enumerate(rows)]


def _read_mapping(tree: dict, source: str) -> list[_Row]:
    """Classes of a mapping of ids, colours and names to each other, or to fields."""
    keys, values = list(tree), list(tree.values())
    places = [f"at {str(key)!r}" for key in keys]
    if values and all(isinstance(value, dict) for value in values):
        titles = list(dict.fromkeys(str(title) for entry in values for title in entry))
        lines = [[{str(k): v for k, v in entry.items()}.get(title) for title in titles] for entry in values]
        has_name = _find_column(titles, lines, NAME_TITLES, _is_text) is not None
        kind = "id" if all(_as_integer(key) is not None for key in keys) else "name"
        kind = "color" if has_name and all(read_colour(key) is not None for key in keys) else kind
        if kind == "name" and has_name:
            raise ValueError(f"{source} has names as keys, and in its entries again. Keep one of them.")
        return _read_columns([kind, *titles], [[k, *v] for k, v in zip(keys, lines, strict=True)], places, source)
    if keys and all(read_colour(key) is not None for key in keys):
        rows = [_Row(_as_name(tree[key], source), None, read_colour(key), f"at {key!r}") for key in keys]
    elif keys and all(_as_integer(key) is not None for key in keys):
        rows = [_Row(_as_name(tree[key], source), _as_integer(key), None, f"at {key!r}") for key in keys]
    elif keys and all(_as_integer(value) is not None for value in values):
        rows = [_Row(_as_name(key, source), _as_integer(tree[key]), None, f"at {key!r}") for key in keys]
    elif keys and all(read_colour(value) is not None for value in values):
        rows = [_Row(_as_name(key, source), None, read_colour(tree[key]), f"at {key!r}") for key in keys]
    else:
        raise ValueError(
            f"{source} maps neither numbers nor colours to names. Write it as"
            ' {"0": "land", "1": "lake"} or {"land": [0, 128, 0], "lake": [0, 0, 255]}.'
        )
    return rows


def _as_name(value: Any, source: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{source} holds {str(value)[:50]!r} where a name is to stand. Write names in quotes.")
    return value.strip()


def _as_integer(value: Any) -> int | None:
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        return int(value)
    is_integer = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31
    return value if is_integer else None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and _as_integer(value) is None and read_colour(value) is None


# -------------------------------------------------------------------------------------------------------------- tables


def _normalized(title: str) -> str:
    return re.sub(r"[^a-z]", "", title.lower())


def _find_column(titles: Sequence[str], lines: Sequence[Sequence[Any]], wanted: Sequence[str], fits) -> int | None:
    """The column of the first wanted title whose cells fit."""
    titles = [_normalized(title) for title in titles]
    for title in wanted:
        for column, other in enumerate(titles):
            if other == title and all(fits(line[column]) for line in lines):
                return column
    return None


def _read_columns(titles: Sequence[str], lines: Sequence[Sequence[Any]], places: list[str], source: str) -> list[_Row]:
    """Classes of a table whose columns have titles; those of other titles are passed over."""
    columns = f"{source} has the columns {', '.join(map(repr, titles))}"
    ids = [
        column
        for column, title in enumerate(titles)
        if _normalized(title) in ID_TITLES and all(_as_integer(line[column]) is not None for line in lines)
    ]
    for column, title in enumerate(titles):
        numbers = [_as_integer(line[column]) for line in lines]
        is_of_ids = _normalized(title) in ID_TITLES and _normalized(title) not in NAME_TITLES
        if is_of_ids and set(numbers) > {None}:
            wrong = numbers.index(None)
            raise ValueError(
                f"{source} has {lines[wrong][column]!r} {places[wrong]} in its column {title!r}, elsewhere numbers:"
                " number all classes."
            )
    if len({tuple(_as_integer(line[column]) for line in lines) for column in ids}) > 1:
        raise ValueError(
            f"{columns}, of which {' and '.join(repr(titles[column]) for column in ids)} both number the classes."
            " Remove the one that the masks do not hold."
        )
    names = _find_column(titles, lines, NAME_TITLES, _is_text)
    if names is None:  # a name may be a number, such as "7", where the column cannot mean anything else
        others = ["" if column in ids else title for column, title in enumerate(titles)]
        names = _find_column(others, lines, NAME_TITLES, lambda cell: isinstance(cell, str))
    if names is None:
        raise ValueError(f"{columns}, none of which holds names. Call one 'name'; others 'id', or 'r', 'g' and 'b'.")
    colours = _find_colours(titles, lines, places, source)
    return [
        _Row(line[names].strip(), _as_integer(line[ids[0]]) if ids else None, colour, place)
        for line, colour, place in zip(lines, colours, places, strict=True)
    ]


def _find_colours(
    titles: Sequence[str], lines: Sequence[Sequence[Any]], places: list[str], source: str
) -> list[int | None]:
    """The colours of a table: of one column, or of one for each channel."""
    normalized = [_normalized(title) for title in titles]
    column = next((index for index, title in enumerate(normalized) if title in COLOUR_TITLES), None)
    channels = [
        next((index for index, title in enumerate(normalized) if title in wanted), None) for wanted in CHANNEL_TITLES
    ]
    if None not in channels:
        cells = [[line[channel] for channel in channels] for line in lines]
        colours = [read_colour([_as_integer(cell) for cell in three]) for three in cells]
    elif column is not None:
        cells = [line[column] for line in lines]
        colours = [_as_hex(cell) for cell in cells]
    else:
        return [None] * len(lines)
    if all(cell in (None, "", [None] * 3, [""] * 3) for cell in cells):
        return [None] * len(lines)
    if None in colours:
        wrong = colours.index(None)
        raise ValueError(
            f"{source} has {cells[wrong]!r} {places[wrong]} where a colour is to stand. Write it as #rrggbb or"
            " (r, g, b), with values from 0 to 255."
        )
    return colours


def _as_hex(value: Any) -> int | None:
    """A colour of a column that is called so, which needs no "#"."""
    colour = read_colour(value)
    if colour is None and isinstance(value, str) and re.fullmatch(r"[0-9a-fA-F]{6}", value.strip()):
        return int(value, 16)
    return colour


# --------------------------------------------------------------------------------------------------------------- lines


class _Line(NamedTuple):
    text: str
    number: int  # from 1

    @property
    def place(self) -> str:
        return f"on line {self.number}"


class _Number(NamedTuple):
    """A number at one end of a line."""

    value: int
    is_of_colour: bool  # such as "#ff0000" or "(255, 0, 0)", which are three numbers
    is_marked: bool  # whether more than spaces parts it from what is nearer to the middle
    rest: str  # the line without it and all that is further out


def _read_lines(text: str, source: str, suffix: str) -> list[_Row]:
    lines = [_Line(line.strip(), number) for number, line in enumerate(re.split(r"\r\n|\n|\r", text.rstrip()), 1)]
    # "#" begins a comment, unless it begins a colour.
    lines = [line for line in lines if not line.text.startswith("#") or re.match(r"#[0-9a-fA-F]{6}\b", line.text)]
    filled = [line for line in lines if line.text]
    if not filled:
        raise ValueError(f"{source} holds comments alone. It names the classes, one per line in the order of ids.")
    if max(len(line.text) for line in filled) > MAXIMUM_LETTERS_OF_LINE:  # no name is as long, as its check tells
        return [_Row(line.text, None, None, line.place) for line in lines]
    if all(CVAT_LINE.fullmatch(line.text) for line in filled):
        return _read_cvat(filled, source)
    titled = _read_titled(filled, source, suffix)
    if titled is not None:
        return titled
    leading = [_numbers_at_end(line.text, PART.finditer(line.text)) for line in filled]
    trailing = [_numbers_at_end(line.text, reversed(list(PART.finditer(line.text))), is_end=True) for line in filled]
    rows = _read_coloured(filled, leading, trailing, source) or _read_numbered(filled, leading, trailing, source)
    if rows is not None:
        return rows
    if suffix == ".csv" and all(len(_cells(line.text, ",")) > 1 for line in filled):
        raise ValueError(
            f"{source} has several columns and no line that says what they hold. Begin it with one, such as"
            " name,r,g,b or id,name."
        )
    # An empty line between names stays, so that whoever checks the names can tell of it.
    return [_Row(_unquoted(line.text), None, None, line.place) for line in lines]


def _unquoted(text: str) -> str:
    return text[1:-1].replace('""', '"').strip() if len(text) > 1 and text[0] == text[-1] == '"' else text


def _read_cvat(lines: Sequence[_Line], source: str) -> list[_Row]:
    """The labelmap.txt of CVAT and of VOC: name, colour, parts and actions, of which the colour may be missing."""
    rows = []
    for line in lines:
        name, channels = CVAT_LINE.fullmatch(line.text).groups()[:2]
        rows.append(_Row(name.strip(), None, _colour_of(channels, line, source) if channels else None, line.place))
    return rows


def _colour_of(channels: str | Sequence[int], line: _Line, source: str) -> int:
    colour = read_colour(channels)
    if colour is None:
        raise ValueError(
            f"{source} has the colour {channels} {line.place}, which is none: its values lie between 0 and 255."
        )
    return colour


def _read_titled(lines: Sequence[_Line], source: str, suffix: str) -> list[_Row] | None:
    """A table whose first line has the titles of its columns; `None` where it has none."""
    for delimiter in ("\t", ";", ",", "|", None):
        titles = _cells(lines[0].text, delimiter)
        words = [_normalized(title) for title in titles]
        num_known = sum(word in KNOWN_TITLES for word in words)
        has_name = any(word in NAME_TITLES for word in words) and num_known >= (1 if suffix == ".csv" else 2)
        if not has_name and not num_known == len(words) >= 3:
            continue
        if delimiter is None and (num_known < len(words) or not all(re.search("[0-9]", e.text) for e in lines[1:])):
            continue  # words of a name
        rows = [_cells(line.text, delimiter) for line in lines[1:]]
        for cells, line in zip(rows, lines[1:], strict=True):
            while len(cells) > len(titles) and not cells[-1]:  # empty cells at the end, as spreadsheets leave them
                cells.pop()
            if len(cells) != len(titles):
                raise ValueError(
                    f"{source} has {len(cells)} cells {line.place}, {line.text[:100]!r}, and {len(titles)} titles"
                    f" {lines[0].place}: both are to be equal. Put a name that holds"
                    f" {'a space' if delimiter is None else repr(delimiter)} into double quotes."
                )
        if not rows:
            raise ValueError(f"{source} holds titles of columns alone, and no class.")
        return _read_columns(titles, rows, [line.place for line in lines[1:]], source)
    return None


def _cells(text: str, delimiter: str | None) -> list[str]:
    """The cells of a line; `None` stands for spaces of any number."""
    text, delimiter = (" ".join(text.split()), " ") if delimiter is None else (text, delimiter)
    try:
        return [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])]
    except csv.Error:  # a cell of more letters than it takes
        return [text]


def _numbers_at_end(text: str, parts: Iterable[re.Match], is_end: bool = False) -> list[_Number]:
    """Up to four numbers with which a line begins or, of its parts backwards, ends: the outermost first."""
    numbers: list[_Number] = []
    for part in parts:
        word = part[0].strip('"')
        is_counted = not is_end and not numbers and NUMBERED.fullmatch(word) is not None
        values = [int(word.rstrip(".)"))] if is_counted or NUMBER.fullmatch(word) else []
        if word[:1] in ("#", "(", "[") and (colour := read_colour(word)) is not None:
            values = [colour >> 16, colour >> 8 & 255, colour & 255]
        if not values or len(numbers) >= 4:
            break
        outer = text[: part.start()] if is_end else text[part.end() :]
        rest = _without_dash(outer.strip(MARKS), is_end)
        is_marked = is_counted or len(values) == 3 or len(rest) < len(outer.strip())
        values = values[::-1] if is_end else values
        numbers += [_Number(value, len(values) == 3, is_marked, rest) for value in values]
    return numbers


def _without_dash(text: str, is_end: bool) -> str:
    """A name without the dash or arrow, a word of its own, that parts it from a number."""
    for dash in ("->", "=>", "-", "–"):
        if is_end and text.endswith(f" {dash}"):
            return text[: -len(dash)].strip(MARKS)
        if not is_end and text.startswith(f"{dash} "):
            return text[len(dash) :].strip(MARKS)
    return text


def _read_coloured(
    lines: Sequence[_Line], leading: Sequence[list[_Number]], trailing: Sequence[list[_Number]], source: str
) -> list[_Row] | None:
    """Lines with colours, before or behind names, and perhaps with ids; `None` where there are none."""
    are_coloured = [
        any(len(numbers) >= 3 and numbers[-1].rest for numbers in ends) for ends in zip(leading, trailing, strict=True)
    ]
    if not any(are_coloured):
        return None
    if not all(are_coloured):
        wrong = lines[are_coloured.index(False)]
        raise ValueError(
            f"{source} holds colours, but none {wrong.place}, {wrong.text[:100]!r}. Write one for each class, as three"
            " numbers from 0 to 255 or as #rrggbb."
        )
    is_end = min(map(len, leading)) < 3
    ends, others = (trailing, leading) if is_end else (leading, trailing)
    if min(map(len, ends)) < 3:
        raise ValueError(f"{source} has colours before some names and behind others. Write all of them alike.")
    ids: Sequence[int | None] = [None] * len(lines)
    if min(map(len, ends)) > 3:
        names = [numbers[3].rest for numbers in ends]
        ids, channels = _part_four([numbers[3::-1] if is_end else numbers[:4] for numbers in ends], source)
    else:
        names = [numbers[2].rest for numbers in ends]
        channels = [[number.value for number in (numbers[2::-1] if is_end else numbers[:3])] for numbers in ends]
        if any(len({number.is_of_colour for number in numbers[:3]}) > 1 for numbers in ends):
            raise ValueError(f"{source} has numbers beside the colours of some names alone. Write all lines alike.")
        if is_end and all(others) and _are_ids([numbers[0].value for numbers in others]):
            ids = [numbers[0].value for numbers in others]
            names = [_numbers_at_end(name, PART.finditer(name))[0].rest for name in names]
    for line, name in zip(lines, names, strict=True):
        if not name or re.search(r"[,;\t|]\s*[0-9]+\s*([,;\t|]|$)", name):
            raise ValueError(
                f"{source}: which columns hold what cannot be told {line.place}, {line.text[:100]!r}. Begin the file"
                " with a line of titles, such as name,r,g,b."
            )
    return [
        _Row(_unquoted(name), key, _colour_of(colour, line, source), line.place)
        for name, key, colour, line in zip(names, ids, channels, lines, strict=True)
    ]


def _part_four(numbers: Sequence[list[_Number]], source: str) -> tuple[Sequence[int | None], list[list[int]]]:
    """Of four numbers, in the order of their line, the id and the colour; or the colour and alpha."""
    values = [[number.value for number in four] for four in numbers]
    first, last = [four[0] for four in values], [four[3] for four in values]
    ways: dict[str, tuple[Sequence[int | None], list[list[int]]]] = {}
    if not any(four[0].is_of_colour for four in numbers):
        ways["the first is the id"] = (first, [four[1:] for four in values])
    if not any(four[3].is_of_colour for four in numbers):
        ways["the last is the id"] = (last, [four[:3] for four in values])
        if set(last) == {255}:
            ways["the last is the opacity"] = ([None] * len(last), [four[:3] for four in values])
    ways = {
        words: (ids, colours)
        for words, (ids, colours) in ways.items()
        if (ids[0] is None or len(set(ids)) == len(ids))
        and all(read_colour(colour) is not None for colour in colours)
        and len(set(map(tuple, colours))) == len(colours)
    }
    # Ids that count on leave no doubt, and neither does what is 255 on every line.
    likely = [words for words, (ids, _) in ways.items() if ids[0] is not None and _count_on(ids)]
    likely = likely or [words for words, (ids, _) in ways.items() if ids[0] is None] or list(ways)
    if len(likely) != 1:
        readings = " or ".join(ways) or "no three are a colour of one class alone"
        raise ValueError(
            f"{source} has four numbers on each line; {readings}. Begin the file with a line of titles, such as"
            " id,r,g,b,name."
        )
    return ways[likely[0]]


def _count_on(numbers: Sequence[int]) -> bool:
    """Whether numbers count on by 1 from 0 or 1."""
    return numbers[0] in (0, 1) and list(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))


def _are_ids(numbers: Sequence[int]) -> bool:
    return len(set(numbers)) == len(numbers)


def _read_numbered(
    lines: Sequence[_Line], leading: Sequence[list[_Number]], trailing: Sequence[list[_Number]], source: str
) -> list[_Row] | None:
    """Lines with one number each, before or behind the name; `None` where the numbers belong to names."""
    for ends in (leading, trailing):
        numbers = [found[0] if found and found[0].rest else None for found in ends]
        is_first_alone = len(lines) > 2 and numbers[0] is None and None not in numbers[1:]
        if is_first_alone and _count_on([number.value for number in numbers[1:]]):
            raise ValueError(
                f"{source} numbers its classes, but not {lines[0].text[:100]!r} {lines[0].place}. If that is no class,"
                " remove the line, or write titles: id and name."
            )
        if None in numbers:
            continue
        ids, names = [number.value for number in numbers], [_unquoted(number.rest) for number in numbers]
        differ = len(set(ids)) == len(ids) and len(set(names)) == len(names)
        if all(number.is_marked for number in numbers) or (_count_on(ids) and differ):
            # Ids and names that occur twice in spite of their marks are refused where all are checked.
            return [_Row(name, key, None, line.place) for name, key, line in zip(names, ids, lines, strict=True)]
        if differ and len(ids) > 1 and sorted(ids) == ids and ids[0] >= 0 and ids[-1] <= 255:
            raise ValueError(
                f"{source} can be read in two ways: {lines[0].text!r} as the whole name of class 0, or as the name"
                f' {names[0]!r} of class {ids[0]}. For the former write a list in JSON, ["{lines[0].text}", ...]; for'
                f" the latter part them by a colon, '{ids[0]}: {names[0]}'."
            )
    return None
