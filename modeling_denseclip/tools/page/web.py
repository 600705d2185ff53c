# Copyright 2026 The DenseCLIP for Transformers authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
r"""
Serve a page on which people segment photographs in their browser.

Every answer holds all that its page shows, so the server keeps nothing of a photograph but the uploaded file, which is
deleted after an hour, and when the page ends. The page asks for nothing outside this server.
"""

import asyncio
import atexit
import base64
import contextlib
import copy
import io
import os
import re
import shutil
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import torch

from ...image_processing_denseclip import DenseCLIPImageProcessor
from ...modeling_denseclip import DenseCLIPForSemanticSegmentation, resize_logits
from ..commands.predict import Predictor, draw_mask
from ..files.loading import choose_device, load_model, naming_lack_of_memory
from ..files.photographs import IMAGE_SUFFIXES, decode_photograph, decoded_size, open_photograph
from ..insight.text_scores import describe
from ..pictures.palettes import generate_palette
from .viewer import VIEWER_CSS, VIEWER_HTML, VIEWER_SCRIPT


try:
    import fcntl
except ImportError:  # Windows, where what a page that was killed has left is removed once it is old
    fcntl = None

if TYPE_CHECKING:
    import gradio


MAXIMUM_BYTES = 20 * 2**20  # of an upload
MAXIMUM_PIXELS = 24_000_000  # of a photograph, as its header says before it is decoded
MAXIMUM_TEXTS = 20
MAXIMUM_LETTERS = 2000  # of all words together
MAXIMUM_QUESTION = 2**18  # bytes of a request that is no upload
MAXIMUM_WAITING = 32  # photographs in the queue, and uploads at a time; the model takes one photograph after the other
MAXIMUM_KEPT = 200  # uploads that lie on the disk
UPLOAD_SECONDS = 600  # that a request may take to arrive
VIEW_SIDE = 1280  # the longer side of the picture on the page, in pixels
MAXIMUM_MAP_VALUES = 2**22  # of all heat maps of a photograph together
CLASSES_AT_A_TIME = 16
TEMPORARY_SECONDS = 3600  # that an upload is kept
# What the page itself asks of Gradio, which has other routes: some compute at once, past the queue, and some write.
ROUTES = {
    "POST": re.compile("queue/join|upload|cancel|reset/?"),
    "GET": re.compile(
        "info/?|app_id/?|user/?|token/?|login_check/?|startup-events|theme.css|queue/(data|status)|upload_progress"
        "|heartbeat/.*|file=.*"
    ),
}
FORM_BYTES = 2**16  # around the file in an upload
DRAINED_BYTES = 2**26  # of a request that is too large, so that its sender gets to read the answer
UPLOADS = "denseclip-web-"  # what folders for uploads are called

CLASS_HINT = "Upload a photograph to see which of its classes the model finds in it, and where."
TEXT_HINT = "Upload a photograph and type some words to see where it matches them."
NAMED_CLASSES = 40  # of those that the page begins with
TEXT_MEANING = "Cosine similarity of picture and words; the colours mean the same for all words of this picture."
CLASS_MEANING = "Probability of the class: the softmax over all classes of the model."
PAGE_CSS = """
.gradio-container { width: 100%; max-width: 1240px !important; margin: 0 auto; }
.html-container { padding: 0 !important; }
.words { align-items: flex-end; }
.masthead h1 { margin: 6px 0 2px; font-size: 26px; font-weight: 650; letter-spacing: -0.01em; }
.masthead p { margin: 0; color: var(--body-text-color-subdued); }
"""


# --- command ---------------------------------------------------------------------------------------------------------


def load_page(
    name: str, device: str | None = None, tokenizer: str | None = None, revision: str = "main"
) -> "gradio.Blocks":
    """Load a model by its folder or Hub id, make it fast, and build its page."""
    device = choose_device(device)
    model, image_processor = load_model(name, tokenizer=tokenizer, revision=revision)
    # The path of a folder is nobody's business.
    return build_page(model.to(device).fuse(), image_processor, Path(name).name if Path(name).is_dir() else name)


def serve(
    page: "gradio.Blocks", host: str | None = None, port: int | None = None, share: bool = False
) -> tuple[str, ...]:
    """Serve the page from a thread; returns its addresses. Without a host or port, Gradio's environment decides."""
    import gradio
    from starlette.middleware import Middleware

    uploads = make_upload_folder()
    for block in page.blocks.values():
        block.GRADIO_CACHE = str(uploads)
    page.queue(max_size=MAXIMUM_WAITING, api_open=False)
    _, local, shared = page.launch(
        server_name=host,
        server_port=port,
        share=share,
        prevent_thread_lock=True,
        quiet=True,
        max_file_size=MAXIMUM_BYTES,
        footer_links=[],
        ssr_mode=False,
        app_kwargs={"middleware": [Middleware(Gate, uploads=uploads)]},
        # Fonts of the machine, so that none is loaded.
        theme=gradio.themes.Base(
            primary_hue="indigo",
            neutral_hue="slate",
            radius_size="lg",
            font=["ui-sans-serif", "system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ).set(body_text_color_subdued="*neutral_500"),  # darker than the theme's, to be read by everybody
        css=PAGE_CSS,
    )
    return (local, shared) if shared else (local,)


# --- what reaches Gradio ---------------------------------------------------------------------------------------------


_locks: dict[str, int] = {}


def make_upload_folder() -> Path:
    """
    A folder of this process alone for what visitors upload, which Gradio is told by its environment variable. It is
    removed when the process ends, and with it what pages left that were killed.
    """
    parent = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    if str(parent) in _locks:  # of another page of this process
        return parent
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=UPLOADS, dir=parent)).resolve()
        lock = _lock(folder)
        if folder.exists():  # and no other page that begins has taken it for one that was left
            break
    owner = folder.stat().st_uid
    for other in parent.glob(f"{UPLOADS}*"):
        if not other.is_symlink() and other.is_dir() and other.lstat().st_uid == owner:
            if (is_free := _lock(other)) is not None:
                shutil.rmtree(other, ignore_errors=True)
                os.close(is_free)
            else:
                tidy(other)
    if lock is not None:
        _locks[str(folder)] = lock
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _lock(folder: Path) -> int | None:
    """Lock a folder until the process ends, in whatever way; `None` where another one has, or there are no locks."""
    if fcntl is None:
        return None
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def tidy(folder: Path) -> None:
    """Remove uploads that are old, and the oldest of those that are too many; also of visitors who broke off."""
    files = []
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                files.append((path.stat().st_mtime, path))
        except OSError:  # it has just gone
            continue
    files.sort()
    for index, (written, path) in enumerate(files):
        if time.time() - written > TEMPORARY_SECONDS or index < len(files) - MAXIMUM_KEPT:
            path.unlink(missing_ok=True)
            if path.parent != folder and not any(path.parent.iterdir()):
                path.parent.rmdir()


def forget_unread(sessions: Mapping[str, asyncio.Queue]) -> None:
    """Drop answers that nobody fetches, the oldest first, if there are many. Gradio would keep all of them."""
    unread = [messages for messages in sessions.values() if not messages.empty()]
    for messages in unread[:-MAXIMUM_WAITING]:
        while not messages.empty():
            messages.get_nowait()


class Gate:
    """
    What requests reach Gradio, as a middleware: those that its own page makes, of limited size and time.

    Args:
        app: the application behind it.
        uploads (`Path`): where Gradio puts uploads.
    """

    def __init__(self, app: Callable, uploads: Path):
        self.app = app
        self.uploads = uploads
        self.running = 0  # uploads

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        _, is_gradio, route = scope["path"].partition("/gradio_api/")
        # What is not of Gradio is the page and its files.
        allowed = ROUTES[method].fullmatch(route) if method in ROUTES and is_gradio else method == "GET"
        if not allowed and method != "OPTIONS":  # by which a browser asks whether it may
            return await PlainTextResponse("The page takes no such request.", 404)(scope, receive, send)
        if method != "POST":
            return await self.app(scope, receive, send)
        is_upload = route == "upload"
        if is_upload and self.running >= MAXIMUM_WAITING:
            return await PlainTextResponse("Too many uploads at a time: try again.", 503)(scope, receive, send)
        limit = MAXIMUM_BYTES + FORM_BYTES if is_upload else MAXIMUM_QUESTION
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        received, has_begun, end = 0, False, time.monotonic() + UPLOAD_SECONDS

        async def receive_some() -> dict[str, Any]:
            nonlocal received
            message = await asyncio.wait_for(receive(), max(end - time.monotonic(), 0))
            received += len(message.get("body", b""))
            if received > limit:
                raise _TooLargeError
            return message

        async def send_noted(message: dict[str, Any]) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        self.running += is_upload
        try:
            if is_upload:
                tidy(self.uploads)
            else:
                forget_unread(scope["app"].get_blocks()._queue.pending_messages_per_session)
            if int(stated) > limit:
                raise _TooLargeError
            await self.app(scope, receive_some, send_noted)
        except _TooLargeError:
            if not has_begun:
                limit, more = DRAINED_BYTES, True
                with contextlib.suppress(_TooLargeError, asyncio.TimeoutError):
                    while more:
                        more = (await receive_some()).get("more_body", False)
                await PlainTextResponse("This request is too large.", 413)(scope, receive, send)
        except asyncio.TimeoutError:
            if not has_begun:
                await PlainTextResponse("This request takes too long to arrive.", 408)(scope, receive, send)
        finally:
            self.running -= is_upload


class _TooLargeError(Exception):
    pass


# --- page ------------------------------------------------------------------------------------------------------------


def build_page(
    model: DenseCLIPForSemanticSegmentation, image_processor: DenseCLIPImageProcessor, name: str
) -> "gradio.Blocks":
    """
    The page of one model: its classes, and, of a model with language, any words.

    Args:
        model ([`DenseCLIPForSemanticSegmentation`]): in evaluation mode, on its device.
        image_processor ([`DenseCLIPImageProcessor`]): what prepares its images. They are not padded, even if it pads
            batches: each goes alone.
        name (`str`): of the model, as the page shows it.

    Raises:
        ImportError: where Gradio is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise ImportError('The web page needs Gradio: pip install "modeling-denseclip[web]"') from error

    image_processor = copy.copy(image_processor)
    image_processor.do_pad = False
    # Whatever route a request takes, the model sees one photograph at a time, and few wait for it.
    turn, places = threading.Lock(), threading.BoundedSemaphore(MAXIMUM_WAITING)

    def answer_in_turn(compute: Callable[[], dict]) -> dict:
        if not places.acquire(blocking=False):
            return {"error": "Too many photographs are waiting: try again in a minute."}
        try:
            with turn:
                return answer(compute)
        finally:
            places.release()

    def show_classes(data: bytes | None) -> tuple[dict, None]:
        return answer_in_turn(lambda: segment(model, image_processor, read_upload(data), name)), None

    def show_texts(data: bytes | None, words: str | None) -> dict:
        def score() -> dict:
            texts = split_texts(words) if data is not None else []
            return score_texts(model, image_processor, read_upload(data), texts, name)

        return answer_in_turn(score)

    def add_viewer(hint: str, elem_id: str) -> gradio.HTML:
        return gradio.HTML(
            html_template=VIEWER_HTML,
            css_template=VIEWER_CSS,
            js_on_load=VIEWER_SCRIPT,
            apply_default_css=False,
            elem_id=elem_id,
            hint=hint,
        )

    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    more = f" and {len(names) - NAMED_CLASSES} more" if len(names) > NAMED_CLASSES else ""
    hint = f"{CLASS_HINT}\n\n{', '.join(names[:NAMED_CLASSES])}{more}"
    limit = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}
    with gradio.Blocks(
        title=f"DenseCLIP: {name}", analytics_enabled=False, delete_cache=(TEMPORARY_SECONDS // 4, TEMPORARY_SECONDS)
    ) as page:
        gradio.HTML(
            html_template="<h1>DenseCLIP</h1><p>{{value}}</p>",
            value=f"Semantic segmentation with {name}, {model.config.num_labels} classes",
            elem_classes="masthead",
        )
        upload = gradio.File(
            file_types=list(IMAGE_SUFFIXES),
            type="binary",
            height=130,
            label=f"Photograph, up to {MAXIMUM_BYTES // 2**20} MB and {MAXIMUM_PIXELS // 10**6} megapixels",
            elem_id="upload",
        )
        move = upload.async_move_resource_to_block_cache

        async def move_uploaded(path: str | Path | None) -> str | None:
            if "://" in str(path):  # which Gradio would download, of any size
                raise ValueError("A photograph is uploaded, not named by its address.")
            return await move(path)

        upload.async_move_resource_to_block_cache = move_uploaded
        if model.config.use_language:
            with gradio.Tab("Classes of the model"):
                classes = add_viewer(hint, "classes")
            with gradio.Tab("Any words"):
                with gradio.Row(elem_classes="words"):
                    words = gradio.Textbox(
                        label="Words, separated by commas",
                        placeholder="bus stop, dog, wet road",
                        max_lines=2,
                        scale=5,
                        min_width=300,
                        elem_id="words",
                    )
                    button = gradio.Button("Find", variant="primary", scale=0, min_width=130, elem_id="find")
                texts = add_viewer(TEXT_HINT, "texts")
            gradio.on([button.click, words.submit], show_texts, [upload, words], texts, **limit)
        else:
            classes, texts = add_viewer(hint, "classes"), gradio.State()
        upload.upload(show_classes, upload, [classes, texts], **limit)
        upload.clear(lambda: (None, None), None, [classes, texts], api_visibility="private")
    return page


def answer(compute: Callable[[], dict]) -> dict:
    """What `compute` returns, or, as `{"error": ...}`, what people have to know instead."""
    advice = "This photograph needs more memory than there is: make it smaller and upload it again."
    try:
        with naming_lack_of_memory(advice):
            return compute()
    except ValueError as error:
        return {"error": str(error)}


def read_upload(data: bytes | None) -> PIL.Image.Image:
    """
    The upright photograph, RGB.

    Raises:
        ValueError: for what is no image, or too large; pixels are counted before any is decoded.
    """
    if not isinstance(data, bytes):
        raise ValueError("There is no photograph yet: upload one above.")
    if len(data) > MAXIMUM_BYTES:
        raise ValueError(f"This file has {len(data) / 2**20:.1f} MB; {MAXIMUM_BYTES // 2**20} are the limit.")
    too_large = f"{MAXIMUM_PIXELS // 10**6} megapixels are the limit: make it smaller and upload it again."
    try:
        with open_photograph(io.BytesIO(data), "This picture") as file:
            width, height = decoded_size(file)
            if width * height > MAXIMUM_PIXELS:
                raise ValueError(f"This picture has {width} x {height} pixels; {too_large}")
            return decode_photograph(file, "This picture")
    except OSError as error:
        if isinstance(error.__cause__, PIL.Image.DecompressionBombError):
            reason = str(error.__cause__)
            if "pixels" in reason:
                raise ValueError(f"This picture is too large; {too_large}") from error
            raise ValueError(f"This picture cannot be read: {reason}.") from error
        raise ValueError(
            "This file cannot be read as a picture: it is damaged, or something else by the name of one. Upload a"
            f" photograph ({', '.join(suffix[1:].upper() for suffix in IMAGE_SUFFIXES)})."
        ) from error


def split_texts(words: str | None) -> list[str]:
    """
    The words between commas and line ends, without repetition.

    Raises:
        ValueError: if there are none, or too many, or too long ones: letters are counted before anything else is done.
    """
    words = words if isinstance(words, str) else ""
    if len(words) > MAXIMUM_LETTERS:
        raise ValueError(f"These words have {len(words)} letters; {MAXIMUM_LETTERS} are the limit.")
    texts = list(dict.fromkeys(" ".join(part.split()) for part in re.split("[,;\n]", words) if part.strip()))
    if not texts:
        raise ValueError("There are no words yet: type some, separated by commas.")
    if len(texts) > MAXIMUM_TEXTS:
        raise ValueError(f"These are {len(texts)} words or phrases; {MAXIMUM_TEXTS} are the limit.")
    return texts


# --- what it shows ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def segment(
    model: DenseCLIPForSemanticSegmentation,
    image_processor: DenseCLIPImageProcessor,
    photograph: PIL.Image.Image,
    name: str,
) -> dict:
    """The classes of the decode head, as the pipeline finds them; see `describe_maps`."""
    size, num_labels = photograph.size[::-1], model.config.num_labels
    predictor = Predictor(model, image_processor)
    predictor.check(photograph)
    outputs = model(predictor.prepare([photograph]), return_dict=True)
    (result,) = image_processor.post_process_panoptic_segmentation(outputs, target_sizes=[size])
    segmentation = result["segmentation"].cpu().numpy()
    pixels = np.bincount(segmentation.ravel(), minlength=num_labels).tolist()
    classes = [
        {
            "id": segment["id"],
            "label": model.config.id2label[segment["id"]],
            "pixels": pixels[segment["id"]],
            "area": round(pixels[segment["id"]] / segmentation.size, 6),
            "score": round(segment["score"], 6),
        }
        for segment in sorted(result["segments_info"], key=lambda segment: -pixels[segment["id"]])
    ]
    grid = shrink(outputs.logits.shape[-2:], num_labels)
    return describe_maps(
        photograph,
        segmentation,
        names=[model.config.id2label[index] for index in range(num_labels)],
        palette=model.config.palette or generate_palette(num_labels),
        remarks={entry["id"]: f"mean probability {100 * entry['score']:.1f} %" for entry in classes},
        scores=winning_probability(outputs.logits, view_size(photograph)),
        maps=resize_logits(outputs.logits.float(), grid).softmax(dim=1)[0],
        limits=(0.0, 1.0),
    ) | {
        "title": count(len(classes), "class", "classes") + " found",
        "view": "Classes",
        "note": "",
        "meaning": CLASS_MEANING,
        "percent": True,
        "details": {
            "model": name,
            "height": size[0],
            "width": size[1],
            "score": "softmax probability of the class, averaged over its pixels",
            "classes": classes,
        },
    }


@torch.no_grad()
def score_texts(
    model: DenseCLIPForSemanticSegmentation,
    image_processor: DenseCLIPImageProcessor,
    photograph: PIL.Image.Image,
    texts: Sequence[str],
    name: str,
) -> dict:
    """The best of the texts at each pixel, from the branch of the score map; see `describe_maps`."""
    size = photograph.size[::-1]
    predictor = Predictor(model, image_processor)
    predictor.check(photograph)
    cosines = model.score_text(predictor.prepare([photograph]), texts).float()
    (segmentation,) = image_processor.post_process_semantic_segmentation(
        SimpleNamespace(logits=cosines), target_sizes=[size]
    )
    segmentation = segmentation.cpu().numpy()
    pixels = np.bincount(segmentation.ravel(), minlength=len(texts)).tolist()
    # As `score_text` decides.
    described = describe(name, model.config, is_clip=False, learned_prompts=not model.has_untrained_contexts())
    return describe_maps(
        photograph,
        segmentation,
        names=texts,
        palette=generate_palette(len(texts)),
        remarks={index: f"cosine {values.min():.3f} to {values.max():.3f}" for index, values in enumerate(cosines[0])},
        scores=resize_logits(cosines, view_size(photograph))[0].amax(dim=0),
        maps=cosines[0],
        limits=(cosines.min().item(), cosines.max().item()),
    ) | {
        "title": "Best at each pixel",
        "view": "Best words",
        "note": f"{described}\nOne of them is the best everywhere, even where none applies.",
        "meaning": TEXT_MEANING,
        "percent": False,
        "details": {
            "model": name,
            "height": size[0],
            "width": size[1],
            "score": "cosine similarity with the pixels of the score map, in [-1, 1]",
            "texts": [
                {
                    "id": index,
                    "text": text,
                    "pixels": pixels[index],
                    "area": round(pixels[index] / segmentation.size, 6),
                    **{part: round(getattr(values, part)().item(), 6) for part in ("min", "mean", "max")},
                }
                for index, (text, values) in enumerate(zip(texts, cosines[0], strict=True))
            ],
        },
    }


def describe_maps(
    photograph: PIL.Image.Image,
    segmentation: np.ndarray,
    names: Sequence[str],
    palette: Sequence[Sequence[int]],
    remarks: Mapping[int, str],
    scores: torch.Tensor,
    maps: torch.Tensor,
    limits: tuple[float, float],
) -> dict:
    """
    Pack maps for the browser, as JSON: arrays are base64 of zlib, since a browser that guards against fingerprinting
    changes what is read back from a PNG.

    Args:
        photograph (`PIL.Image.Image`): upright, RGB.
        segmentation (array of shape `(height, width)`): ids of `names`, per pixel of the photograph.
        names (`Sequence[str]`): of ids from 0 on.
        palette (`Sequence` of RGB triples in [0, 255]): their colours.
        remarks (`Mapping[int, str]`): on each name that is found, beside its area.
        scores (`torch.Tensor` of shape `(view_height, view_width)`): of the best name at each pixel of the page.
        maps (`torch.Tensor` of shape `(num_names, map_height, map_width)`): the scores of each name.
        limits (`tuple[float, float]`): least and greatest score; in 256 steps between them scores are shown.
    """
    view = view_size(photograph)
    # The photograph's pixel below the centre of each pixel of the page.
    rows, columns = (
        ((np.arange(length) + 0.5) * original / length).astype(np.intp)
        for length, original in zip(view, segmentation.shape, strict=True)
    )
    areas = np.bincount(segmentation.ravel(), minlength=len(names)) / segmentation.size
    low, high = limits
    span = high - low if high > low else 1.0

    def quantize(values: torch.Tensor) -> np.ndarray:
        return ((values.cpu() - low) / span * 255).round().clamp(0, 255).to(torch.uint8).numpy()

    return {
        "width": view[1],
        "height": view[0],
        "map_width": maps.shape[-1],
        "map_height": maps.shape[-2],
        "limits": [low, low + span],
        "photo": data_url(photograph.resize(view[::-1], PIL.Image.Resampling.LANCZOS), "JPEG", quality=90),
        "mask": data_url(draw_mask(segmentation, palette), "PNG"),
        "ids": pack(segmentation[np.ix_(rows, columns)].astype("<u2")),
        "scores": pack(quantize(scores)),
        "maps": pack(quantize(maps)),
        "classes": [
            {"id": index, "name": label, "color": color, "area": area, "remark": remarks.get(index, "")}
            for index, (label, color, area) in enumerate(zip(names, palette, areas.tolist(), strict=True))
        ],
    }


def view_size(photograph: PIL.Image.Image) -> tuple[int, int]:
    """Height and width on the page."""
    scale = VIEW_SIDE / max(photograph.size)
    return max(round(photograph.height * scale), 1), max(round(photograph.width * scale), 1)


def shrink(size: tuple[int, int], num_maps: int) -> tuple[int, int]:
    """The largest (height, width) up to `size` of which `num_maps` maps are few enough."""
    scale = min((MAXIMUM_MAP_VALUES / (num_maps * size[0] * size[1])) ** 0.5, 1)
    return max(int(size[0] * scale), 1), max(int(size[1] * scale), 1)


def winning_probability(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """
    The softmax probability of the best class at each pixel of an image of `size`, of which the logits are enlarged for
    a few classes at a time: (1, num_labels, logits_height, logits_width) -> size.
    """
    best = total = torch.full(size, float("-inf"), device=logits.device)
    for some in logits[0].split(CLASSES_AT_A_TIME):
        enlarged = resize_logits(some[None].float(), size)[0]
        best = torch.maximum(best, enlarged.amax(dim=0))
        total = torch.logaddexp(total, enlarged.logsumexp(dim=0))
    return (best - total).exp()


def data_url(picture: PIL.Image.Image, form: str, **options) -> str:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def pack(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(array.tobytes())).decode()


def count(number: int, singular: str, plural: str) -> str:
    return f"{number} {singular if number == 1 else plural}"
