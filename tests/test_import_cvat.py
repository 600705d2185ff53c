# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""CVAT's XML, against drawings by hand, `pycocotools` and loops over pixels."""

import pickle
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as coco_mask

from tests.damage import damage_attributes, damage_bytes, survives
from training.importing.cvat import find_cvat
from training.importing.sources import UNCOVERED, Listing


# pycocotools' own drawings, with which ours are compared.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEIGHT, WIDTH = SIZE = (13, 17)
META = """<meta><task><labels>
<label><name>sky</name><color>#33ddff</color><type>any</type>
<attributes><attribute><name>weather</name><mutable>False</mutable></attribute></attributes></label>
<label><name>cat</name><color>#33ddfe</color></label>
<label><name>tail</name><type>points</type></label>
</labels></task></meta>"""
A_BOX = '<box label="cat" occluded="0" xtl="2.00" ytl="3.00" xbr="6.00" ybr="5.00" z_order="0"></box>'


def write_pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (WIDTH, HEIGHT)).save(folder / name)


def write_xml(folder: Path, body: str, name: str = "annotations.xml", meta: str = META) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{meta}{body}</annotations>'
    (folder / name).write_text(text, encoding="utf-8")


def image(shapes: str, name: str = "a.png", more: str = "") -> str:
    return f'<image id="0" name="{name}" width="{WIDTH}" height="{HEIGHT}" {more}>{shapes}</image>'


def draw(folder: Path, shapes: str, overlaps=None) -> np.ndarray:
    """What is drawn of the shapes of one picture."""
    write_pictures(folder, "images/a.png")
    write_xml(folder, image(shapes))
    [item] = find_cvat(Listing(folder), overlaps).items
    return pickle.loads(pickle.dumps(item.draw))(SIZE).keys


def box(label: str, left: float, top: float, right: float, bottom: float, more: str = "") -> str:
    return f'<box label="{label}" xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}" {more}/>'


def polygon(label: str, points, more: str = "") -> str:
    told = ";".join(f"{x:.2f},{y:.2f}" for x, y in points)
    return f'<polygon label="{label}" points="{told}" {more}/>'


@pytest.mark.parametrize(
    ("orders", "top"),
    [((0, 0), 1), ((1, 0), 0), ((0, 1), 1), ((-1, -2), 0)],
    ids=["equal", "first", "second", "below"],
)
def test_what_has_the_higher_z_order_or_comes_later_is_seen(tmp_path, orders, top):
    expected = np.full(SIZE, UNCOVERED)
    parts = [(0, slice(2, 9), slice(1, 8)), (1, slice(4, 12), slice(5, 17))]
    for key, rows, columns in [parts[1 - top], parts[top]]:
        expected[rows, columns] = key
    first = box("sky", 1, 2, 8, 9, f'z_order="{orders[0]}"')
    second = box("cat", 5, 4, 17, 12, f'z_order="{orders[1]}"')
    np.testing.assert_array_equal(draw(tmp_path, first + second), expected)


def test_the_smaller_one_is_seen_if_asked(tmp_path):
    shapes = box("cat", 3, 3, 6, 6) + box("sky", 0, 0, WIDTH, HEIGHT, 'z_order="4"')
    assert not (draw(tmp_path, shapes) == 1).any()
    assert (draw(tmp_path, shapes, "smaller") == 1).sum() == 9


TRIANGLE = """
.................
..######.........
...#####.........
....####.........
.....###.........
......##.........
.......#.........
"""


def test_a_triangle_by_hand(tmp_path):
    rows = np.array([[letter == "#" for letter in row] for row in TRIANGLE.split()])
    expected = np.full(SIZE, UNCOVERED)
    expected[: len(rows)][rows] = 1
    np.testing.assert_array_equal(draw(tmp_path, polygon("cat", [(1, 1), (8, 1), (8, 8)])), expected)


def test_polygons_are_those_of_pycocotools(tmp_path):
    generator = np.random.default_rng(0)
    for num_points in (3, 4, 7, 12):
        points = generator.uniform((-3, -3), (WIDTH + 3, HEIGHT + 3), (num_points, 2)).round(2)
        encoded = coco_mask.frPyObjects([points.ravel().tolist()], HEIGHT, WIDTH)
        expected = np.where(coco_mask.decode(coco_mask.merge(encoded)), 1, UNCOVERED)
        assert (expected == 1).any()
        np.testing.assert_array_equal(draw(tmp_path, polygon("cat", points)), expected)


def test_boxes_are_turned_around_their_centre(tmp_path):
    upright = draw(tmp_path, box("cat", 6, 2, 10, 10))
    np.testing.assert_array_equal(draw(tmp_path, box("cat", 4, 4, 12, 8, 'rotation="90.00"')), upright)
    slanted = draw(tmp_path, box("cat", 3, 5, 14, 7, 'rotation="45.00"'))
    # Clockwise, as one sees it: from the upper left to the lower right.
    assert slanted[3, 5] == slanted[9, 11] == 1
    assert slanted[9, 5] == slanted[3, 11] == UNCOVERED


def test_ellipses_have_centre_and_radii_of_whole_pixels(tmp_path):
    drawn = draw(tmp_path, '<ellipse label="cat" cx="8.40" cy="5.70" rx="5.70" ry="2.80"/>') == 1
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    assert drawn[np.hypot((x - 8) / 5.5, (y - 6) / 2.5) <= 1].all()
    assert not drawn[np.hypot((x - 8) / 6.9, (y - 6) / 3.9) > 1].any()
    turned = draw(tmp_path, '<ellipse label="cat" cx="8" cy="6" rx="6" ry="2" rotation="90.00"/>') == 1
    assert turned[1, 8] and turned[11, 8] and not turned[6, 3]


@pytest.mark.parametrize("starts_inside", [False, True])
def test_masks_are_runs_of_rows_within_a_box(tmp_path, starts_inside):
    pixels = np.random.default_rng(1).random((5, 7)) < 0.5
    pixels[0, 0] = starts_inside
    lengths, value = [0], False
    for pixel in pixels.ravel():
        if pixel == value:
            lengths[-1] += 1
        else:
            lengths.append(1)
            value = pixel
    expected = np.full(SIZE, UNCOVERED)
    expected[6:11, 9:16][pixels] = 1
    told = ", ".join(map(str, lengths))
    shape = f'<mask label="cat" source="manual" rle="{told}" left="9" top="6" width="7" height="5" z_order="0"/>'
    np.testing.assert_array_equal(draw(tmp_path, shape), expected)


@pytest.mark.parametrize(("left", "top"), [(-2, -1), (15, 11), (-9, 0), (3, 99), (3, -9)])
def test_what_of_a_mask_lies_beyond_the_picture_is_cut_off(tmp_path, left, top):
    expected = np.full(SIZE, UNCOVERED)
    for index in range(5, 12):  # of 4 x 3 pixels
        y, x = top + index // 4, left + index % 4
        if 0 <= y < HEIGHT and 0 <= x < WIDTH:
            expected[y, x] = 1
    shape = f'<mask label="cat" rle="5, 7" left="{left}" top="{top}" width="4" height="3"/>'
    np.testing.assert_array_equal(draw(tmp_path, shape), expected)


def test_a_mask_may_be_as_wide_as_the_picture(tmp_path):
    shape = f'<mask label="cat" rle="0, {2 * WIDTH}" left="0" top="1" width="{WIDTH}" height="2"/>'
    expected = np.full(SIZE, UNCOVERED)
    expected[1:3] = 1
    np.testing.assert_array_equal(draw(tmp_path, shape), expected)


def test_what_is_told_of_labels_and_of_shapes_without_area(tmp_path):
    write_pictures(tmp_path, "a.png", "b.png", "not_annotated.png")
    lines = """<polyline label="cat" points="1,1;5,5"/><points label="tail" points="1,1;5,5"/><tag label="cat"/>
        <skeleton label="cat"><points label="tail" points="1,1"/><box label="cat" xtl="0" ytl="0" xbr="9" ybr="9"/>
        </skeleton><polygon label="cat" points="1,1;5,5"/><cuboid label="cat" xtl1="1"/>"""
    write_xml(tmp_path, image(lines) + image(A_BOX + box("dog & co".replace("&", "&amp;"), 8, 8, 9, 9), "b.png"))
    source = find_cvat(Listing(tmp_path))
    assert source.form == "CVAT for images"
    assert source.names == {0: "sky", 1: "cat", 2: "dog & co"}
    assert [item.name for item in source.items] == ["a", "b"]
    assert (source.items[0].draw(SIZE).keys == UNCOVERED).all()
    assert source.items[1].size == SIZE
    told = "\n".join(source.notes)
    kinds = ("1 x cuboid", "1 x points", "1 x polygon of fewer than", "1 x polyline", "1 x skeleton", "1 x tag")
    for part in (*kinds, "'dog & co'", "1 of 2 photographs have no shape"):
        assert part in told
    assert source.left_out == ["not_annotated.png: nothing annotates it"]


def test_photographs_are_found_where_cvat_and_people_put_them(tmp_path):
    write_pictures(tmp_path, "x/images/Train/a.png", "x/images/val/a.png", "x/images/b.png", "c.PNG", "y/z/d.png")
    body = (
        image(A_BOX, more='subset="Train"')
        + image(A_BOX, more='subset="val"')
        + image(A_BOX, "b.png", 'subset="default"')
        + image(A_BOX, "c.png")
        + image(A_BOX, "elsewhere\\d.png")
        + image(A_BOX, "missing.png")
    )
    write_xml(tmp_path / "x", body)
    source = find_cvat(Listing(tmp_path))
    assert {(item.image.relative_to(tmp_path).as_posix(), item.split) for item in source.items} == {
        ("x/images/Train/a.png", "training"),
        ("x/images/val/a.png", "validation"),
        ("x/images/b.png", None),
        ("c.PNG", None),
        ("y/z/d.png", None),
    }
    assert [line for line in source.left_out if "missing.png" in line and "not there" in line]


def test_pictures_of_which_it_cannot_be_told_which_are_left_out(tmp_path):
    write_pictures(tmp_path, "p/a.png", "q/a.png", "r/b.png", "c.png")
    body = image(A_BOX) + image(A_BOX, "one/b.png") + image(A_BOX, "two/b.png") + image(A_BOX, "c.png")
    write_xml(tmp_path, body)
    source = find_cvat(Listing(tmp_path))
    assert [item.name for item in source.items] == ["c"]
    assert any("several pictures are called 'a.png'" in line for line in source.left_out)
    assert sum("only r/b.png was found, as of other names" in line for line in source.left_out) == 2


def test_of_two_entries_of_a_picture_the_last_with_a_shape_is_taken(tmp_path):
    write_pictures(tmp_path, "a.png")
    write_xml(tmp_path, image(A_BOX) + image(box("sky", 0, 0, 3, 3)) + image(""))
    source = find_cvat(Listing(tmp_path))
    [item] = source.items
    assert set(np.unique(item.draw(SIZE).keys)) == {UNCOVERED, 0}
    assert any("2 earlier annotations" in note for note in source.notes)


def test_subsets_are_splits_where_they_are_called_so(tmp_path):
    write_pictures(tmp_path, "val/a.png", "val/b.png", "c.png")
    body = image(A_BOX, more='subset="Train"') + image(A_BOX, "b.png", 'subset="night"')
    write_xml(tmp_path / "val", body + image(A_BOX, "c.png", 'subset="my test set"'))
    splits = {item.image.name: item.split for item in find_cvat(Listing(tmp_path)).items}
    assert splits == {"a.png": "training", "b.png": "validation", "c.png": "test"}


def test_splits_are_told_by_files_and_folders(tmp_path):
    for split in ("train", "val"):
        write_pictures(tmp_path, f"{split}/{split}_a.png")
        write_xml(tmp_path / split, image(A_BOX, f"{split}_a.png"))
    write_pictures(tmp_path, "images/c.png")
    write_xml(tmp_path, image(A_BOX, "c.png"), "annotations_test.xml")
    source = find_cvat(Listing(tmp_path))
    assert [(item.name, item.split) for item in source.items] == [
        ("c", "test"),
        ("train_a", "training"),
        ("val_a", "validation"),
    ]


SQUARE = polygon("", [(4, 4), (9, 4), (9, 8), (4, 8)], 'frame="1" outside="0" z_order="-1"')
TRACKS = f"""<track id="0" label="sky">
<box frame="0" keyframe="1" outside="0" xtl="1" ytl="2" xbr="8" ybr="9" z_order="0"/>
<box frame="1" keyframe="0" outside="0" xtl="2" ytl="3" xbr="9" ybr="10" z_order="0"/>
<box frame="2" keyframe="1" outside="1" xtl="2" ytl="3" xbr="9" ybr="10" z_order="0"/>
<box frame="4" keyframe="1" outside="1" xtl="2" ytl="3" xbr="9" ybr="10" z_order="0"/></track>
<track id="1" label="cat">{SQUARE}</track>
"""
VIDEO_META = META.replace(
    "</task>", f"<original_size><width>{WIDTH}</width><height>{HEIGHT}</height></original_size></task>"
)


def test_a_video_is_read_frame_by_frame(tmp_path):
    write_pictures(tmp_path, *(f"x/images/frame_{number:06}.PNG" for number in (0, 1, 2, 3)))
    write_pictures(tmp_path, "y/images/frame_000001.PNG")  # of another video
    write_xml(tmp_path / "x", TRACKS, meta=VIDEO_META)
    source = find_cvat(Listing(tmp_path))
    assert source.form == "CVAT for video"
    expected = np.full((4, *SIZE), UNCOVERED)
    expected[0, 2:9, 1:8] = 0
    expected[1, 4:8, 4:9] = 1
    expected[1, 3:10, 2:9] = 0
    np.testing.assert_array_equal([item.draw(SIZE).keys for item in source.items], expected)
    assert [item.size for item in source.items] == [SIZE] * 4
    assert source.left_out == ["y/images/frame_000001.PNG: nothing annotates it"]


def test_a_video_without_its_frames_is_refused(tmp_path):
    write_pictures(tmp_path, "images/0001.png")
    write_xml(tmp_path, TRACKS)
    with pytest.raises(ValueError, match=r"annotations\.xml: it annotates a video.*frame_000000\.png.*ffmpeg"):
        find_cvat(Listing(tmp_path))


def test_videos_of_several_tasks_in_one_file_are_refused(tmp_path):
    write_pictures(tmp_path, "images/frame_000000.png")
    write_xml(tmp_path, TRACKS.replace('id="0"', 'id="0" task_id="7"').replace('id="1"', 'id="1" task_id="8"'))
    with pytest.raises(ValueError, match="several tasks"):
        find_cvat(Listing(tmp_path))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ('<polygon label="cat" points="1,1;nan,2;3,3"/>', "something else than finite numbers is in its points"),
        ('<polygon label="cat" points="1,1;2;3,3"/>', "something else than numbers is in its points"),
        ('<polygon label="cat"/>', "it has no 'points'"),
        ('<polygon points="1,1;2,2;3,1"/>', "it has no label"),
        (
            '<box label="cat" xtl="a" ytl="0" xbr="1" ybr="1"/>',
            "something else than numbers is in its xtl, ytl, xbr, ybr",
        ),
        ('<ellipse label="cat" cx="1" cy="1" rx="-1" ry="1"/>', "negative"),
        ('<mask label="cat" rle="0, 7" left="0" top="0" width="2" height="3"/>', "does not fit 2 x 3"),
        ('<mask label="cat" rle="7, -1" left="0" top="0" width="2" height="3"/>', "does not fit 2 x 3"),
        ('<mask label="cat" rle="x" left="0" top="0" width="2" height="3"/>', "invalid literal"),
    ],
)
def test_a_picture_with_a_broken_shape_is_left_out_alone(tmp_path, shape, reason):
    write_pictures(tmp_path, "a.png", "b.png")
    write_xml(tmp_path, image(shape) + image(A_BOX, "b.png"))
    source = find_cvat(Listing(tmp_path))
    assert [item.name for item in source.items] == ["b"]
    [line] = source.left_out
    assert line.startswith("annotations.xml, image 0: ") and reason in line


@pytest.mark.parametrize(
    "shape",
    [
        polygon("cat", [(1, 1), (1e9, 2), (3, 3)]),
        '<ellipse label="cat" cx="1" cy="1" rx="1e9" ry="1"/>',
        '<mask label="cat" rle="10000" left="0" top="0" width="100" height="100"/>',
    ],
)
def test_shapes_far_beyond_the_picture_are_refused_with_the_name_of_the_file(tmp_path, shape):
    with pytest.raises(ValueError, match=r"annotations\.xml, image 0: a "):
        draw(tmp_path, shape)


def test_a_picture_of_no_size_is_left_out(tmp_path):
    write_pictures(tmp_path, "a.png", "b.png")
    write_xml(tmp_path, image(A_BOX).replace(f'width="{WIDTH}"', 'width="0"') + image(A_BOX, "b.png"))
    source = find_cvat(Listing(tmp_path))
    assert [item.name for item in source.items] == ["b"] and "its size 0 x 13 is none" in source.left_out[0]


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ('<!DOCTYPE annotations [<!ENTITY a "xxxxxxxxxx"><!ENTITY b "&a;&a;&a;&a;">]>', "declares a DOCTYPE"),
        ('<!DOCTYPE annotations SYSTEM "file:///etc/passwd">', "declares a DOCTYPE"),
    ],
)
def test_documents_that_declare_entities_are_refused(tmp_path, head, reason):
    write_pictures(tmp_path, "a.png")
    (tmp_path / "annotations.xml").write_text(f"{head}<annotations>{image(A_BOX)}</annotations>")
    with pytest.raises(ValueError, match=rf"annotations\.xml: it {reason}"):
        find_cvat(Listing(tmp_path))


def test_other_files_are_none_of_cvat(tmp_path):
    write_pictures(tmp_path, "a.png")
    (tmp_path / "voc.xml").write_text("<annotation><object><name>cat</name></object></annotation>")
    (tmp_path / "other.xml").write_text("<annotations><note>1</note></annotations>")
    (tmp_path / "doctype.xml").write_text("<!DOCTYPE html><html></html>")
    (tmp_path / "none.xml").write_bytes(b"\x00\x01")
    (tmp_path / "empty.xml").write_bytes(b"")
    assert find_cvat(Listing(tmp_path)) is None


def test_broken_files_are_named(tmp_path):
    write_pictures(tmp_path, "a.png")
    write_xml(tmp_path, image(A_BOX))
    content = (tmp_path / "annotations.xml").read_bytes()
    (tmp_path / "annotations.xml").write_bytes(content[:-30])
    with pytest.raises(ValueError, match=r"annotations\.xml: it is no whole XML"):
        find_cvat(Listing(tmp_path))
    write_xml(tmp_path, "")
    with pytest.raises(ValueError, match="no photograph with an annotation"):
        find_cvat(Listing(tmp_path))


def test_other_encodings_and_depths_are_read(tmp_path):
    write_pictures(tmp_path, "a.png")
    deep = "<x>" * 50_000 + "</x>" * 50_000
    text = f"<annotations><version>1.1</version>{deep}{image(box('café', 1, 1, 3, 3))}</annotations>"
    content = f'<?xml version="1.0" encoding="windows-1252"?>{text}'.encode("windows-1252")
    (tmp_path / "annotations.xml").write_bytes(content)
    assert find_cvat(Listing(tmp_path)).names == {0: "café"}


@pytest.mark.parametrize("is_video", [False, True])
def test_damaged_files_end_in_an_error_that_is_told(tmp_path, is_video):
    write_pictures(tmp_path, "a.png", "images/frame_000000.png", "images/frame_000001.png")
    mask = '<mask label="cat" rle="1, 2, 1" left="14" top="10" width="2" height="2" z_order="1"/>'
    ellipse = '<ellipse label="sky" cx="8.4" cy="5.7" rx="6.2" ry="3.1" rotation="30"/>'
    write_xml(tmp_path, TRACKS if is_video else image(A_BOX + mask + ellipse), meta=VIDEO_META)
    file = tmp_path / "annotations.xml"
    content = file.read_bytes()
    for damage in (damage_bytes, damage_attributes):
        num_drawn = 0
        for seed in range(300):
            file.write_bytes(damage(content, seed))
            num_drawn += survives(lambda: find_cvat(Listing(tmp_path)), SIZE)
        assert 0 < num_drawn < 300
