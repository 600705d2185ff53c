# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Small data sets in the forms that tools and public data sets have, made by the rules of each form."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


BACKGROUND, CROP, WEED = 0, 1, 2
NAMES = ("background", "crop", "weed")
COLOURS = np.array([(0, 0, 0), (60, 180, 75), (230, 25, 75)], np.uint8)


class Scene(NamedTuple):
    """A photograph of a height and width of its own, and what is on it: rectangles, of which later ones lie above."""

    split: str
    stem: str
    pixels: np.ndarray
    boxes: list[tuple[int, tuple[int, int, int, int]]]  # class; left, top, right, bottom, the last two excluded

    @property
    def ids(self) -> np.ndarray:
        ids = np.zeros(self.pixels.shape[:2], np.uint8)
        for label, (left, top, right, bottom) in self.boxes:
            ids[top:bottom, left:right] = label
        return ids


def make_scenes(training: int = 5, validation: int = 2, seed: int = 0) -> list[Scene]:
    rng = np.random.default_rng(seed)
    scenes = []
    for index in range(training + validation):
        height, width = rng.integers(50, 90, 2)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).copy()
        boxes = []
        for label in (CROP, WEED, CROP):
            left, top = rng.integers(2, width - 20), rng.integers(2, height - 20)
            boxes.append(
                (label, (int(left), int(top), int(left + rng.integers(8, 18)), int(top + rng.integers(8, 18))))
            )
            pixels[boxes[-1][1][1] : boxes[-1][1][3], boxes[-1][1][0] : boxes[-1][1][2]] = COLOURS[label]
        scenes.append(Scene("train" if index < training else "val", f"field_{index:03}", pixels, boxes))
    return scenes


def save(path: Path, pixels: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def corners(box: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    left, top, right, bottom = box
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


# -------------------------------------------------------------------------------------------------------------- shapes


def coco_content(scenes: list[Scene], categories: list[dict], key_of: dict[int, int], names: list[str]) -> dict:
    annotations = [
        {
            "image_id": index,
            "category_id": key_of[label],
            "segmentation": [[float(number) for corner in corners(box) for number in corner]],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "area": (box[2] - box[0]) * (box[3] - box[1]),
            "iscrowd": 0,
        }
        for index, scene in enumerate(scenes)
        for label, box in scene.boxes
    ]
    return {
        "info": {},
        "licenses": [],
        "images": [
            {"id": index, "file_name": name, "height": scene.pixels.shape[0], "width": scene.pixels.shape[1]}
            for index, (scene, name) in enumerate(zip(scenes, names, strict=True))
        ],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, 1)],
        "categories": categories,
    }


def write_coco(folder: Path, scenes: list[Scene]) -> None:
    """COCO's own layout: ids of categories have gaps."""
    categories = [
        {"id": 3, "name": "crop", "supercategory": "plant"},
        {"id": 7, "name": "weed", "supercategory": "plant"},
    ]
    for split in ("train", "val"):
        own = [scene for scene in scenes if scene.split == split]
        names = [f"{scene.stem}.jpg" for scene in own]
        for scene, name in zip(own, names, strict=True):
            save(folder / f"{split}2017" / name, scene.pixels)
        content = coco_content(own, categories, {CROP: 3, WEED: 7}, names)
        write_json(folder / "annotations" / f"instances_{split}2017.json", content)


def roboflow_stem(scene: Scene) -> str:
    return f"{scene.stem}_jpg.rf.{zlib.crc32(scene.stem.encode()):08x}"


def write_roboflow_coco(folder: Path, scenes: list[Scene]) -> None:
    """The first category names the project, and no shape has it."""
    categories = [
        {"id": 0, "name": "fields-xyz1", "supercategory": "none"},
        {"id": 1, "name": "crop", "supercategory": "fields-xyz1"},
        {"id": 2, "name": "weed", "supercategory": "fields-xyz1"},
    ]
    for split, called in (("train", "train"), ("val", "valid")):
        own = [scene for scene in scenes if scene.split == split]
        names = [f"{roboflow_stem(scene)}.jpg" for scene in own]
        for scene, name in zip(own, names, strict=True):
            save(folder / called / name, scene.pixels)
        content = coco_content(own, categories, {CROP: 1, WEED: 2}, names)
        write_json(folder / called / "_annotations.coco.json", content)
    write_text(folder / "README.roboflow.txt", "fields - v1\n")


def write_cvat(folder: Path, scenes: list[Scene]) -> None:
    """CVAT for images 1.1. Shapes lie in any order, and `z_order` says which is above."""
    images = []
    for index, scene in enumerate(scenes):
        save(folder / "images" / f"{scene.stem}.png", scene.pixels)
        height, width = scene.pixels.shape[:2]
        shapes = [
            f'<polygon label="{NAMES[label]}" source="manual" occluded="0" points="'
            + ";".join(f"{x:.2f},{y:.2f}" for x, y in corners(box))
            + f'" z_order="{order}"></polygon>'
            for order, (label, box) in enumerate(scene.boxes)
        ]
        images.append(
            f'<image id="{index}" name="{scene.stem}.png" width="{width}" height="{height}">'
            + "".join(reversed(shapes))
            + "</image>"
        )
    labels = "".join(f"<label><name>{name}</name><color>#3cb44b</color></label>" for name in NAMES[1:])
    write_text(
        folder / "annotations.xml",
        '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><job><labels>'
        + labels
        + "</labels></job></meta>"
        + "".join(images)
        + "</annotations>",
    )


def write_labelme(folder: Path, scenes: list[Scene]) -> None:
    for scene in scenes:
        save(folder / f"{scene.stem}.jpg", scene.pixels)
        height, width = scene.pixels.shape[:2]
        shapes = [
            {
                "label": NAMES[label],
                "points": [[float(x), float(y)] for x, y in corners(box)],
                "group_id": None,
                "shape_type": "polygon",
                "flags": {},
            }
            for label, box in scene.boxes
        ]
        content = {
            "version": "5.4.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"{scene.stem}.jpg",
            "imageData": None,
        }
        write_json(folder / f"{scene.stem}.json", {**content, "imageHeight": height, "imageWidth": width})


def write_label_studio(folder: Path, scenes: list[Scene]) -> None:
    tasks = []
    for number, scene in enumerate(scenes):
        save(folder / "images" / f"{scene.stem}.png", scene.pixels)
        height, width = scene.pixels.shape[:2]
        results = [
            {
                "id": f"r{number}{index}",
                "type": "polygonlabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {
                    "points": [[100 * x / width, 100 * y / height] for x, y in corners(box)],
                    "closed": True,
                    "polygonlabels": [NAMES[label]],
                },
            }
            for index, (label, box) in enumerate(scene.boxes)
        ]
        annotation = {"id": number, "was_cancelled": False, "result": results}
        image = f"/data/upload/1/{zlib.crc32(scene.stem.encode()):08x}-{scene.stem}.png"
        tasks.append({"id": number, "annotations": [annotation], "data": {"image": image}})
    write_json(folder / "project-1-at-2026.json", tasks)


def write_yolo(folder: Path, scenes: list[Scene]) -> None:
    for scene in scenes:
        split = {"train": "train", "val": "valid"}[scene.split]
        save(folder / split / "images" / f"{scene.stem}.jpg", scene.pixels)
        height, width = scene.pixels.shape[:2]
        lines = [
            " ".join(
                [str(label - 1), *(f"{number:.6f}" for x, y in corners(box) for number in (x / width, y / height))]
            )
            for label, box in scene.boxes
        ]
        write_text(folder / split / "labels" / f"{scene.stem}.txt", "\n".join(lines) + "\n")
    write_text(
        folder / "data.yaml", "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['crop', 'weed']\n"
    )


# --------------------------------------------------------------------------------------------------------------- masks


def write_cvat_masks(folder: Path, scenes: list[Scene]) -> None:
    """CVAT's "Segmentation mask 1.1": colours, whose names are in labelmap.txt, and objects beside classes."""
    for scene in scenes:
        save(folder / "JPEGImages" / f"{scene.stem}.png", scene.pixels)
        save(folder / "SegmentationClass" / f"{scene.stem}.png", COLOURS[scene.ids])
        objects = np.zeros(scene.ids.shape, np.uint8)
        for number, (_, (left, top, right, bottom)) in enumerate(scene.boxes, 1):
            objects[top:bottom, left:right] = number
        save(
            folder / "SegmentationObject" / f"{scene.stem}.png",
            np.roll(np.eye(4, 3, -1, np.uint8) * 128, 1, 1)[objects],
        )
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in zip(NAMES, COLOURS.tolist(), strict=True)]
    write_text(folder / "labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", *lines, ""]))
    write_text(folder / "ImageSets/Segmentation/default.txt", "".join(f"{scene.stem}\n" for scene in scenes))


def write_roboflow_masks(folder: Path, scenes: list[Scene]) -> None:
    """Roboflow's "Semantic Segmentation Masks": ids, and a table of names with a line of titles."""
    for scene in scenes:
        split = {"train": "train", "val": "valid"}[scene.split]
        save(folder / split / f"{roboflow_stem(scene)}.jpg", scene.pixels)
        save(folder / split / f"{roboflow_stem(scene)}_mask.png", scene.ids)
        lines = [f"{id}, {name}" for id, name in enumerate(NAMES)]
        write_text(folder / split / "_classes.csv", "\n".join(["Pixel Value, Class", *lines]))


def write_suffixes(folder: Path, scenes: list[Scene]) -> None:
    """Photographs and masks in one folder, names in a file."""
    for scene in scenes:
        save(folder / f"{scene.stem}.jpg", scene.pixels)
        save(folder / f"{scene.stem}_mask.png", scene.ids)
    write_text(folder / "labels.txt", "".join(f"{name}\n" for name in NAMES))


def write_camvid(folder: Path, scenes: list[Scene]) -> None:
    """Colours with a table, `_L` behind the names of masks, a folder for each split."""
    for scene in scenes:
        save(folder / scene.split / f"{scene.stem}.png", scene.pixels)
        save(folder / f"{scene.split}_labels" / f"{scene.stem}_L.png", COLOURS[scene.ids])
    rows = [f"{name},{','.join(map(str, colour))}" for name, colour in zip(NAMES, COLOURS.tolist(), strict=True)]
    write_text(folder / "class_dict.csv", "\n".join(["name,r,g,b", *rows, ""]))


def write_voc(folder: Path, scenes: list[Scene]) -> None:
    """Palette images, an unlabelled border around everything, and lists of splits."""
    for scene in scenes:
        save(folder / "JPEGImages" / f"{scene.stem}.jpg", scene.pixels)
        ids = scene.ids
        ids[0], ids[-1] = 255, 255
        picture = Image.fromarray(ids).convert("P")
        picture.putpalette(COLOURS.tobytes() + bytes(750) + b"\xe0\xe0\xc0")
        (folder / "SegmentationClass").mkdir(parents=True, exist_ok=True)
        picture.putdata(ids.ravel().tolist())
        picture.save(folder / "SegmentationClass" / f"{scene.stem}.png")
    for split in ("train", "val"):
        stems = "".join(f"{scene.stem}\n" for scene in scenes if scene.split == split)
        write_text(folder / "ImageSets/Segmentation" / f"{split}.txt", stems)
    write_text(folder / "class_names.txt", "".join(f"{name}\n" for name in NAMES))


def write_parts(folder: Path, scenes: list[Scene]) -> None:
    """A mask of two values for each class."""
    for scene in scenes:
        save(folder / "images" / f"{scene.stem}.bmp", scene.pixels)
        for label in (CROP, WEED):
            save(folder / "masks" / NAMES[label] / f"{scene.stem}.png", (scene.ids == label) * np.uint8(255))


def write_deep(folder: Path, scenes: list[Scene]) -> None:
    """Ids of 16 bits, as depth cameras store them, in TIFF beside photographs in WebP."""
    for scene in scenes:
        save(folder / "rgb" / f"{scene.stem}.webp", scene.pixels, lossless=True)
        save(folder / "label" / f"{scene.stem}.tif", scene.ids.astype(np.uint16))
    write_json(folder / "id2label.json", {str(id): name for id, name in enumerate(NAMES)})


def write_matrices(folder: Path, scenes: list[Scene]) -> None:
    """Text of numbers, where -1 is unknown."""
    for scene in scenes:
        save(folder / "images" / f"{scene.stem}.jpg", scene.pixels)
        ids = scene.ids.astype(int)
        ids[0] = -1
        (folder / "labels").mkdir(exist_ok=True)
        np.savetxt(folder / "labels" / f"{scene.stem}.regions.txt", ids, fmt="%d")
    write_text(folder / "classes.txt", "".join(f"{id} {name}\n" for id, name in enumerate(NAMES)))


def write_lossy(folder: Path, scenes: list[Scene]) -> None:
    """Colours in JPEG: hardly a pixel has the colour that was meant."""
    for scene in scenes:
        save(folder / "train" / "images" / f"{scene.stem}.jpg", scene.pixels)
        save(folder / "train" / "masks" / f"{scene.stem}.jpg", COLOURS[scene.ids], quality=90, subsampling=0)
    write_json(folder / "colors.json", dict(zip(NAMES, COLOURS.tolist(), strict=True)))


WRITERS: dict[str, Callable[[Path, list[Scene]], None]] = {
    "coco": write_coco,
    "roboflow_coco": write_roboflow_coco,
    "cvat": write_cvat,
    "labelme": write_labelme,
    "label_studio": write_label_studio,
    "yolo": write_yolo,
    "cvat_masks": write_cvat_masks,
    "roboflow_masks": write_roboflow_masks,
    "suffixes": write_suffixes,
    "camvid": write_camvid,
    "voc": write_voc,
    "parts": write_parts,
    "deep": write_deep,
    "matrices": write_matrices,
    "lossy": write_lossy,
}
