# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Files that name classes, as the tools and the data sets that they come from write them."""

import json
import random
from pathlib import PurePosixPath

import pytest

from training.data.name_files import parse_names, read_colour
from training.importing.names import find_names, is_unlabelled, read_names
from training.importing.sources import Listing


LAND, LAKE = 0x008000, 0x0000FF
TWO = {0: "land", 1: "lake"}
TWO_COLOURS = {LAND: "land", LAKE: "lake"}


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


NUMBERED = {
    "space": "0 land\n1 lake\n",
    "colon": "0: land\n1: lake",
    "comma": "0,land\n1,lake\n\n",
    "tab": "0\tland\r\n1\tlake\r\n",
    "semicolon": "0;land\n1;lake",
    "bracket": "0) land\n1) lake",
    "dash": "0 - land\n1 - lake",
    "behind": "land 0\nlake 1",
    "behind, comma": "land,0\nlake,1",
    "behind, equals": "land = 0\nlake = 1",
    "arrow": "land -> 0\nlake -> 1",
    "quotes": '"0", "land"\n"1", "lake"',
    "Roboflow": "Pixel Value, Class\n0, land\n1, lake\n",
    "titles": "id;name;note\n0;land;\n1;lake;wet",
    "titles, spaces": "id name\n0 land\n1 lake",
    "comments": "# the classes\n0 land\n\n1 lake\n",
    "ADE20K": "Idx\tRatio\tTrain\tVal\tStuff\tName\n0\t0.15\t11664\t1172\t1\tland\n1\t0.1\t6046\t612\t1\tlake",
    "id2label": '{"0": "land", "1": "lake"}',
    "id2label, printed": '{\n "0": "land",\n "1": "lake"\n}\n',
    "label2id": '{"land": 0, "lake": 1}',
    "config.json": '{"id2label": {"0": "land", "1": "lake"}, "label2id": {"land": 0, "lake": 1}, "hidden_size": 8}',
    "COCO": '{"images": [], "categories": [{"supercategory": "x", "id": 0, "name": "land"},'
    ' {"id": 1, "name": "lake"}]}',
    "entries": '[{"label": "land", "id": 0}, {"label": "lake", "id": 1}]',
    "entries of names": '{"land": {"id": 0}, "lake": {"id": 1}}',
    "entries of ids": '{"0": {"name": "land"}, "1": {"name": "lake"}}',
}


@pytest.mark.parametrize("form", NUMBERED)
def test_files_that_number_their_classes(tmp_path, form):
    names = read_names(write(tmp_path / "names.txt", NUMBERED[form]))
    assert names.by_id == names.names == TWO and names.ids_are_written and not names.keys_are_colours
    assert not names.by_colour and not names.unlabelled and not names.notes


COLOURED = {
    "class_dict.csv": "name,r,g,b\nland,0,128,0\nlake,0,0,255\n",
    "class_dict.csv, spaces": "name, r, g, b\nland, 0, 128, 0\nlake, 0, 0, 255",
    "red, green": "Class;Red;Green;Blue;;\nland;0;128;0;;\nlake;0;0;255;;",
    "no titles": "land,0,128,0\nlake,0,0,255",
    "no titles, before": "0,128,0,land\n0,0,255,lake",
    "hex": "label,color\nland,#008000\nlake,#0000FF",
    "hex without #": "label,hex\nland,008000\nlake,0000FF",
    "tuples": 'label,color\nland,"(0, 128, 0)"\nlake,"(0, 0, 255)"',
    "spaces": "label,rgb\nland,0 128 0\nlake,0 0 255",
    "hex lines": "#008000 land\n#0000ff lake",
    "hex lines, behind": "land: #008000\nlake: #0000ff",
    "tuples behind": "land (0, 128, 0)\nlake (0, 0, 255)",
    "CVAT": "# label:color_rgb:parts:actions\nland:0,128,0::\nlake:0,0,255::\n",
    "CamVid": "0 128 0\tland\n0 0 255\t\tlake\n",
    "opaque": "land 0 128 0 255\nlake 0 0 255 255",
    "JSON": '{"land": [0, 128, 0], "lake": [0, 0, 255]}',
    "JSON, hex": '{"#008000": "land", "#0000ff": "lake"}',
    "JSON, tuples": '{"(0, 128, 0)": "land", "(0, 0, 255)": "lake"}',
    "Supervisely": '{"classes": [{"title": "land", "shape": "bitmap", "color": "#008000"},'
    ' {"title": "lake", "shape": "bitmap", "color": "#0000FF"}]}',
    "Mapillary": '{"labels": [{"color": [0, 128, 0], "name": "land"}, {"color": [0, 0, 255], "name": "lake"}]}',
}


@pytest.mark.parametrize("form", COLOURED)
def test_files_that_give_classes_colours(tmp_path, form):
    names = read_names(write(tmp_path / "names.txt", COLOURED[form]))
    assert names.by_colour == names.names == TWO_COLOURS and names.keys_are_colours
    assert names.by_id == TWO and not names.ids_are_written  # places in the file


BOTH = {
    "titles": "id,name,r,g,b\n3,land,0,128,0\n7,lake,0,0,255",
    "titles of channels, behind": "name\tr\tg\tb\tid\nland\t0\t128\t0\t3\nlake\t0\t0\t255\t7",
    "id, hex": "3,#008000,land\n7,#0000ff,lake",
    "hex, id": "land;#008000;3\nlake;#0000ff;7",
    "entries": '[{"id": 3, "name": "land", "color": [0, 128, 0]}, {"id": 7, "name": "lake", "color": [0, 0, 255]}]',
    "Hasty": '[{"png_index": 3, "class_name": "land", "color": "#008000ff", "class_type": "object"},'
    ' {"png_index": 7, "class_name": "lake", "color": "#0000ffff", "class_type": "object"}]',
    "entries of names": '{"land": {"id": 3, "color": "#008000"}, "lake": {"id": 7, "color": "#0000ff"}}',
}


@pytest.mark.parametrize("form", BOTH)
def test_files_that_tell_numbers_and_colours(tmp_path, form):
    names = read_names(write(tmp_path / "names.csv", BOTH[form]))
    assert names.by_id == names.names == {3: "land", 7: "lake"} and names.by_colour == TWO_COLOURS
    assert names.ids_are_written and not names.keys_are_colours


@pytest.mark.parametrize(
    "text", ["0 0 128 0 land\n1 0 0 255 lake", "land 0 128 0 0\nlake 0 0 255 1", "0,land,0,128,0\n1,lake,0,0,255"]
)
def test_four_numbers_of_which_one_counts_on(tmp_path, text):
    names = read_names(write(tmp_path / "names.txt", text))
    assert names.by_id == TWO and names.by_colour == TWO_COLOURS and names.ids_are_written


PLAIN = {
    "lines": ("land\nlake\n", ["land", "lake"]),
    "old line ends": ("land\rlake\r", ["land", "lake"]),
    "commas": ("door, double door\nwall, brick", ["door, double door", "wall, brick"]),
    "digits": ("3d printer\n2 wheeler\ncar", ["3d printer", "2 wheeler", "car"]),
    "numbers that are names": ("2 wheeler\n3 wheeler\n4 wheeler", ["2 wheeler", "3 wheeler", "4 wheeler"]),
    "numbers behind": ("type 1\ntype 2", ["type 1", "type 2"]),
    "large numbers": ("Boeing 737\nAirbus 320", ["Boeing 737", "Airbus 320"]),
    "a list": ('["2 wheeler", "3 phase motor"]', ["2 wheeler", "3 phase motor"]),
    "brackets": ("[other]\nland\n[rest]", ["[other]", "land", "[rest]"]),
    "labelme": ("_background_\ncat", ["_background_", "cat"]),
}


@pytest.mark.parametrize("form", PLAIN)
def test_lines_that_are_names(tmp_path, form):
    text, expected = PLAIN[form]
    names = read_names(write(tmp_path / "classes.txt", text))
    assert list(names.by_id.items()) == list(enumerate(expected)) and not names.ids_are_written


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
@pytest.mark.parametrize(
    "text", ["names: [land, lake]", "nc: 2\nnames:\n- land\n- lake\n", "train: a\nnames:\n  0: land\n  1: lake"]
)
def test_yaml(tmp_path, suffix, text):
    assert read_names(write(tmp_path / f"data{suffix}", text)).by_id == TWO


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path, encoding):
    text = "id,name\r\n0,straße\r\n1,道\r\n"
    assert read_names(write(tmp_path / "a.csv", text, encoding)).by_id == {0: "straße", 1: "道"}


def test_other_encodings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.txt is no text in UTF-8"):
        read_names(write(tmp_path / "a.txt", "straße\nweg", "latin-1"))


@pytest.mark.parametrize(
    "word", ["unlabelled", "Unlabeled", "Void", "ignore", "__ignore__", "unknown", "don't care", "Dont_Care", "<void>"]
)
def test_words_for_unlabelled(tmp_path, word):
    assert is_unlabelled(word)
    names = read_names(write(tmp_path / "names.csv", f"{word},0,0,0\nland,0,128,0\nlake,0,0,255"))
    assert names.names == TWO_COLOURS and names.unlabelled == {0} and names.unlabelled_ids == {0}
    assert names.by_id == {1: "land", 2: "lake"} and names.notes[0].startswith("names.csv calls #000000 (0, 0, 0) ")
    names = read_names(write(tmp_path / "a.json", json.dumps({"7": "land", "255": word})))
    assert names.names == {7: "land"} and names.unlabelled == {255} and f"calls 255 {word!r}" in names.notes[0]


@pytest.mark.parametrize("word", ["background", "other", "none", "avoid", "unknown object", "void space"])
def test_words_that_are_classes(word):
    assert not is_unlabelled(word)


def test_labelme_counts_from_minus_one(tmp_path):
    names = read_names(write(tmp_path / "labels.txt", "__ignore__\n_background_\ncat\n"))
    assert names.by_id == {0: "_background_", 1: "cat"} and names.unlabelled_ids == {-1}


REFUSED = {
    "two readings before": ("2 wheeler\n3 phase motor", "two ways: '2 wheeler' as the whole name of class 0, or as"),
    "two readings behind": (
        "land 10\nlake 20",
        "two ways: 'land 10'.*by a colon, '10: land'",
    ),
    "two ids": ("id,trainId,name\n7,0,road\n8,1,sea", "'id' and 'trainId' both number the classes"),
    "two ids alike": ("3 64 1 2 a\n2 5 6 7 b", "the first is the id or the last is the id"),
    "two names for an id": (
        '[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]',
        "gives the number 1 to 'a' and, in entry 1",
    ),
    "two names for a colour": (
        "a,1,2,3\nb,1,2,3",
        r"gives the colour #010203 \(1, 2, 3\) to 'a' and, on line 2, to 'b'",
    ),
    "a key twice": ('{"0": "a", "0": "b"}', "'0' stands in it twice"),
    "a name twice": ("a\nb\na", "names 'a' twice, again on line 3"),
    "names alike": ("tall tree\nTall_Tree", "Classes 0 and 1 are both called 'Tall Tree'"),
    "no name": ("a\n\nb", "has no name on line 2"),
    "numbers alone": ("0\n1\n2", "holds numbers and no names"),
    "no colour": ("a,1,2,3\nb", "holds colours, but none on line 2, 'b'"),
    "no such colour": ("name,r,g,b\na,1,2,3\nb,1,2,300", r"has \['1', '2', '300'\] on line 3 where a colour"),
    "no such colour of CVAT": ("a:1,2,3::\nb:1,2,300::", "has the colour 1,2,300 on line 2"),
    "no number": ('[{"id": 0, "name": "a"}, {"id": null, "name": "b"}]', "has None in entry 1 in its column 'id'"),
    "too few cells": ("name,r,g,b\na,1,2", "has 3 cells on line 2, 'a,1,2', and 4 titles on line 1"),
    "a title that nobody knows": (
        "Nummer Wort\n0 land\n1 lake",
        "numbers its classes, but not 'Nummer Wort' on line 1",
    ),
    "no titles": ("a, b\nc, d", "has several columns and no line that says what they hold"),
    "titles alone": ("name,id", "holds titles of columns alone"),
    "columns without names": ("id,r,g,b\n1,2,3,4", "has the columns .*, none of which holds names"),
    "columns behind": ("1,2,3,road,4,flat\n5,6,7,sea,8,wet", "which columns hold what cannot be told on line 1"),
    "no JSON": ("{'0': 'land'}", "begins and ends like JSON, and is none"),
    "deep JSON": ("[" * 10**5 + "]" * 10**5, "names.csv"),
    "a number of JSON": ("[1, 2]", "holds '1' where a name is to stand"),
    "nothing of classes": ('{"lr": 0.1, "model": "b0"}', "maps neither numbers nor colours to names"),
    "two lists": (
        '{"names": ["a", "b"], "classes": ["b", "a"]}',
        "names classes under 'names' and, otherwise, under 'classes'",
    ),
    "empty": ("\n \n", "is empty"),
    "comments": ("# a\n# b", "holds comments alone"),
    "unlabelled alone": ("void\n", "names no class but void"),
    "the number of no class": ("-1: licence plate\n0: car", "gives a class the number -1"),
    "a terminal code": ("a\x1b[2J\nb", "holds U\\+001B"),
    "letters": ("a" * 1001 + "\nb", "has 1,001 letters"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_files_that_are_refused(tmp_path, form):
    text, words = REFUSED[form]
    with pytest.raises(ValueError, match=words) as raised:
        read_names(write(tmp_path / "names.csv", text))
    assert "names.csv" in str(raised.value)


def test_yaml_that_is_read_as_something_else(tmp_path):
    with pytest.raises(ValueError, match="holds 'False' where a name is to stand. Write names in quotes"):
        read_names(write(tmp_path / "a.yaml", "names: [land, no]"))
    with pytest.raises(ValueError, match="is no valid YAML"):
        read_names(write(tmp_path / "a.yaml", "names: [land"))


@pytest.mark.parametrize(
    "value, colour",
    [
        ("#0a0B0c", 0x0A0B0C), ("#0a0b0cff", 0x0A0B0C), ("0x0a0b0c", 0x0A0B0C), ("rgb(10, 11, 12)", 0x0A0B0C),
        ("(10,11,12)", 0x0A0B0C), ("[10 11 12]", 0x0A0B0C), ("10;11;12;255", 0x0A0B0C), ([10, 11, 12], 0x0A0B0C),
        ((10, 11, 12, 0), 0x0A0B0C), ("10,11", None), ("10,11,256", None), ([True, 1, 2], None), ("#0a0b0", None),
        ([0.1, 0.2, 0.3], None), (658188, None), (None, None), ("red", None),
    ],
)  # fmt: skip
def test_colours(value, colour):
    assert read_colour(value) == colour


def test_usual_files_are_found(tmp_path):
    for split in ("train", "valid"):
        write(tmp_path / split / "_classes.csv", "Pixel Value, Class\n0, land\n1, lake\n")
    write(tmp_path / "CLASSES.TXT", "land\nlake")
    write(tmp_path / "labels.txt", "land\n\nlake")
    write(tmp_path / "config.json", "{}")
    write(tmp_path / "readme.txt", "words")
    write(tmp_path / ".hidden" / "classes.txt", "a\nb")
    found, left_out = find_names(Listing(tmp_path))
    assert list(found) == [PurePosixPath("CLASSES.TXT"), PurePosixPath("train/_classes.csv")]
    assert found[PurePosixPath("train/_classes.csv")].by_id == TWO
    assert len(left_out) == 1 and left_out[0].startswith("labels.txt: ") and "no name on line 2" in left_out[0]


def test_large_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("training.importing.names.MAXIMUM_LETTERS_OF_FILE", 100)
    with pytest.raises(ValueError, match="has more than 400 bytes"):
        read_names(write(tmp_path / "classes.txt", "a" * 401))
    with pytest.raises(ValueError, match="more than any list of classes"):
        parse_names("a" * (2**22 + 1), "a file")


def test_damaged_files_end_in_errors_that_name_them(tmp_path):
    """Letters changed, repeated and cut off at random: what is read are names, and errors name the file."""
    generator = random.Random(0)
    texts = [text for forms in (NUMBERED, COLOURED, BOTH) for text in forms.values()] + [
        text for text, _ in PLAIN.values()
    ]
    num_read = 0
    for index, text in enumerate(texts * 10):
        letters = list(text)
        for _ in range(generator.randrange(1, 5)):
            place = generator.randrange(len(letters))
            letters[place] = generator.choice(
                ["", "\n", ",", ":", " ", '"', "#", "{", "0", "255", "\x00", "é", letters[place] * 3]
            )
        path = write(tmp_path / f"damaged{('.txt', '.csv', '.json', '.yaml')[index % 4]}", "".join(letters))
        try:
            names = read_names(path)
        except ValueError as error:
            assert "damaged" in str(error)
            continue
        num_read += 1
        for table in (names.by_id, names.by_colour):
            assert all(isinstance(key, int) and name.strip() for key, name in table.items())
    assert num_read > 100


@pytest.mark.parametrize("letter", [" ", ",", "1 ", "#", '"', "(", "[", "{", "1,", "a:", "\n", "-", ":0,0,0"])
def test_long_texts_of_one_letter_take_no_time(letter):
    """Of expressions that look back, each of these letters would be tried anew at every place."""
    for text in (letter * 200_000, letter * 200_000 + "x", "x" + letter * 200_000):
        try:
            assert parse_names(text, "a file").classes
        except ValueError as error:
            assert "a file" in str(error)


def test_names_for_people_come_first(tmp_path):
    """Mapillary Vistas has "readable" beside names of a tree."""
    labels = [
        {"color": [165, 42, 42], "instances": True, "readable": "Bird", "name": "animal--bird", "evaluate": True},
        {"color": [0, 192, 0], "instances": True, "readable": "Ground Animal", "name": "animal--ground-animal"},
    ]
    (tmp_path / "config.json").write_text(json.dumps({"labels": labels, "version": "1.1"}))
    assert list(read_names(tmp_path / "config.json").by_id.values()) == ["Bird", "Ground Animal"]
