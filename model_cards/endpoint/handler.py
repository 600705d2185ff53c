# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
A DenseCLIP on Hugging Face's Inference Endpoints, whose server makes an `EndpointHandler` of the folder with the
model, and calls it with each request.

`python -m training.push DIR REPO --handler` puts a copy beside the weights, in one file that needs nothing else of
this repository. What is wrong in a request is a `ValueError`, of which that server makes the status 400 and the words.
"""

import base64
import difflib
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import torch
from transformers import AutoModelForSemanticSegmentation
from transformers.models.auto.image_processing_auto import AutoImageProcessor

# Begin: in the copy that training.push sends, the texts of these files stand in the place of these lines.
from modeling_denseclip.tools.files.devices import choose_device, naming_lack_of_memory, prepare_for_inference
from modeling_denseclip.tools.files.photographs import read_orientation, to_rgb, turn_upright
from modeling_denseclip.tools.files.received import (
    MAXIMUM_BYTES,
    MEMORY_ADVICE,
    TooLargeError,
    check_pixels,
    check_seen_size,
    read_received,
)


# End


MAXIMUM_PHOTOGRAPHS = 16  # in a request
PARAMETERS = ("output", "subtask", "threshold")
OUTPUTS = ("segments", "ids")
# Parameters of the task that other kinds of models have.
OTHER_PARAMETERS = ("mask_threshold", "overlap_mask_area_threshold")
FORMS = (
    "a photograph is the bytes of its file, as the body of a request of type image/jpeg or image/png, or in JSON as"
    ' base64: {"inputs": "/9j/4AAQ..."}'
)


class EndpointHandler:
    """
    Segments photographs by the model in a folder, on a GPU if there is one, and in bfloat16 where the processor
    multiplies in it.

    Args:
        path (`str`): the folder, with weights, configs, and the code that `training.push` sends with them.
    """

    def __init__(self, path: str = ""):
        path = path or "."
        # The code in this folder is as much to be trusted as this file of it.
        model = AutoModelForSemanticSegmentation.from_pretrained(path, trust_remote_code=True).eval()
        self.model = prepare_for_inference(model, choose_device(None))
        self.image_processor = AutoImageProcessor.from_pretrained(path, trust_remote_code=True)
        self.image_processor.do_pad = False  # what lies beside a photograph would change its classes

    def __call__(self, data: dict[str, Any]) -> list | dict:
        """
        Answer a request.

        Args:
            data (`dict`): `inputs`, a photograph or a list of up to 16: a `PIL.Image.Image`, the bytes of a file, or
                these as base64, also in a `data:` URL. Addresses and paths are not opened. `parameters`, a dictionary,
                may be missing:

                - `output` (`str`, defaults to `"segments"`): what the answer is; `"ids"` is the other.
                - `threshold` (`float` in [0, 1], defaults to 0): segments of a lower score are left out.
                - `subtask` (`str`): `"semantic"` and `"panoptic"` are the same here, and the only ones.

        Returns:
            For each photograph, in a list if `inputs` is one, what the image-segmentation task of Hugging Face's APIs
            answers: a list of `{"label", "score", "mask"}`, one for each class that is found, in the order of their
            ids. `score` is the mean probability of the class over its pixels, and `mask` a PNG, as base64, of the size
            of the upright photograph: white where the class is, and black elsewhere.

            With `output="ids"` a dictionary instead: `height` and `width`; `mask`, a PNG whose pixels are ids (grey of
            8 bits, or of 16 for more than 256 classes); and `classes`, the largest first: a list of `{"id", "label",
            "pixels", "area", "score"}`.

        Raises:
            ValueError: for what cannot be read, is too large or too small, or has no meaning.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            raise ValueError(f"A request has the field `inputs`, and it is missing: {FORMS}.")
        output, threshold = read_parameters(data.get("parameters"))
        inputs = data["inputs"]
        if not isinstance(inputs, list):
            return self.segment(read_input(inputs), output, threshold)
        if not 1 <= len(inputs) <= MAXIMUM_PHOTOGRAPHS:
            raise ValueError(f"A request has 1 to {MAXIMUM_PHOTOGRAPHS} photographs; got {len(inputs)}.")
        answers = []
        for index, received in enumerate(inputs):
            try:
                answers.append(self.segment(read_input(received), output, threshold))
            except ValueError as error:
                raise ValueError(f"inputs[{index}]: {error}") from error
        return answers

    @torch.no_grad()
    def segment(self, photograph: PIL.Image.Image, output: str, threshold: float) -> list | dict:
        """What a call returns of a photograph, upright and RGB."""
        size = photograph.size[::-1]
        seen = self.image_processor.get_resized_size(*size) if self.image_processor.do_resize else size
        check_seen_size(size, seen, self.model.min_image_size)
        with naming_lack_of_memory(MEMORY_ADVICE):
            pixel_values = self.image_processor(photograph, return_tensors="pt").pixel_values
            logits = self.model(pixel_values.to(self.model.device, self.model.dtype)).logits
            (found,) = self.image_processor.post_process_panoptic_segmentation(
                SimpleNamespace(logits=logits), target_sizes=[size]
            )
            class_ids, segments = found["segmentation"].cpu().numpy(), found["segments_info"]
        names = self.model.config.id2label
        if output == "segments":
            return [
                {
                    "label": names[segment["id"]],
                    "score": segment["score"],
                    "mask": encode(np.uint8(255) * (class_ids == segment["id"])),
                }
                for segment in segments
                if segment["score"] >= threshold
            ]
        pixels = np.bincount(class_ids.ravel(), minlength=len(names))
        return {
            "height": size[0],
            "width": size[1],
            "mask": encode(class_ids.astype(np.uint8 if len(names) <= 256 else np.uint16)),
            "classes": [
                {
                    "id": segment["id"],
                    "label": names[segment["id"]],
                    "pixels": int(pixels[segment["id"]]),
                    "area": round(int(pixels[segment["id"]]) / class_ids.size, 6),
                    "score": round(segment["score"], 6),
                }
                for segment in sorted(segments, key=lambda segment: -pixels[segment["id"]])
            ],
        }


def read_input(received: Any) -> PIL.Image.Image:
    """
    The upright photograph, RGB, of one of the forms in which it may come.

    Raises:
        ValueError: for another form, and as `read_received`.
    """
    if isinstance(received, str):
        received = decode_text(received)
    if isinstance(received, bytes | bytearray):
        return read_received(bytes(received))
    if isinstance(received, PIL.Image.Image):  # the server has decoded it
        check_pixels(*received.size)
        try:
            return turn_upright(to_rgb(received, "This picture"), read_orientation(received))
        except OSError as error:  # it was opened alone, and is broken farther on
            raise ValueError(f"This picture cannot be read: {error}.") from error
    raise ValueError(f"`inputs` is a {type(received).__name__}, and {FORMS}.")


def decode_text(text: str) -> bytes:
    """
    The bytes that a text has as base64, with or without the head of a `data:` URL.

    Raises:
        ValueError: for any other text.
    """
    head, comma, body = text.partition(",") if text[:5].lower() == "data:" else ("", "", text)
    if (head or comma) and not head.lower().endswith(";base64"):
        raise ValueError(f"This data: URL holds no base64; {FORMS}.")
    if len(body) > 2 * MAXIMUM_BYTES:  # four letters are three bytes, and there may be line ends
        raise TooLargeError(f"This photograph has {len(body)} letters of base64; it may have {2 * MAXIMUM_BYTES}.")
    if "://" in body[:100]:
        raise ValueError(f"{body[:100]!r} is an address, and nothing is fetched here: {FORMS}.")
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except ValueError as error:  # of letters that it does not have, ASCII or not
        raise ValueError(f"{body[:20]!r}... is no base64 ({error}), and paths are not opened: {FORMS}.") from error


def read_parameters(parameters: Any) -> tuple[str, float]:
    """
    `output` and `threshold`. Those that come in the address of a request are text where they are no whole numbers.

    Raises:
        ValueError: for one that there is not, or of which the value has no meaning.
    """
    parameters = {} if parameters is None else parameters
    if not isinstance(parameters, dict):
        raise ValueError(f"`parameters` is a {type(parameters).__name__}; it is a mapping of names to values.")
    for name in parameters:
        if name in OTHER_PARAMETERS:
            raise ValueError(f"`{name}` has no meaning here, since each pixel has one class: leave it out.")
        if name not in PARAMETERS:
            near = difflib.get_close_matches(str(name), PARAMETERS, n=1)
            advice = f" Did you mean `{near[0]}`?" if near else ""
            raise ValueError(f"There is no parameter {name!r}.{advice} There are {', '.join(PARAMETERS)}.")
    subtask, output = parameters.get("subtask"), parameters.get("output") or "segments"
    if subtask not in (None, "semantic", "panoptic"):
        raise ValueError(f"`subtask` is {subtask!r}, and this model segments classes alone: 'semantic'.")
    if output not in OUTPUTS:
        raise ValueError(f"`output` is {output!r}; it is one of {', '.join(OUTPUTS)}.")
    given = parameters.get("threshold")
    try:
        threshold = 0.0 if given is None else float(given)
        is_right = 0 <= threshold <= 1 and not isinstance(given, bool)
    except (TypeError, ValueError, OverflowError):
        is_right = False
    if not is_right:
        raise ValueError(f"`threshold` is {given!r}; it is a number from 0 to 1.")
    if output == "ids" and threshold:
        raise ValueError(
            "`threshold` leaves out segments, and a mask of ids has a class for each pixel: leave it out."
        )
    return output, threshold


def encode(mask: np.ndarray) -> str:
    """A PNG, as base64, of integers of 8 or 16 bits: `(height, width)`."""
    file = io.BytesIO()
    PIL.Image.fromarray(mask).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()
