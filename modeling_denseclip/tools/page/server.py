# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""
Serve a page on which people segment photographs in their browser.

Every answer holds all that its page shows, so the server keeps nothing of a photograph but the uploaded file, which is
deleted after an hour, and when the page ends. The page asks for nothing outside this server.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...image_processing_denseclip import DenseCLIPImageProcessor
from ...modeling_denseclip import DenseCLIPForSemanticSegmentation
from ..files.devices import choose_device, prepare_for_inference
from ..files.loading import load_model
from ..files.photographs import IMAGE_SUFFIXES
from ..files.received import MAXIMUM_BYTES, MAXIMUM_PIXELS
from .answers import answer, find_classes, read_upload, score_texts, segment, split_texts
from .uploads import MAXIMUM_WAITING, TEMPORARY_SECONDS, Gate, make_upload_folder
from .viewer import VIEWER_CSS, VIEWER_HTML, VIEWER_SCRIPT


if TYPE_CHECKING:
    import gradio


CLASS_HINT = "Upload a photograph to see which of its classes the model finds in it, and where."
TEXT_HINT = "Upload a photograph and type some words to see where it matches them."
NAMED_CLASSES = 40  # of those that the page begins with
PAGE_CSS = """
.gradio-container { width: 100%; max-width: 1240px !important; margin: 0 auto; }
.html-container { padding: 0 !important; }
.words { align-items: flex-end; }
.masthead h1 { margin: 6px 0 2px; font-size: 26px; font-weight: 650; letter-spacing: -0.01em; }
.masthead p { margin: 0; color: var(--body-text-color-subdued); }
"""


def load_page(
    name: str,
    device: str | None = None,
    tokenizer: str | None = None,
    revision: str = "main",
    dtype: str = "auto",
) -> "gradio.Blocks":
    """
    Load a model by its folder or Hub id, make it fast, and build its page; `dtype` as in
    [`~tools.files.devices.choose_dtype`].
    """
    device = choose_device(device)
    model, image_processor = load_model(name, tokenizer=tokenizer, revision=revision)
    # Of a folder, visitors see the name and not the path.
    title = Path(name).name if Path(name).is_dir() else name
    return build_page(prepare_for_inference(model, device, dtype), image_processor, title)


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


def build_page(
    model: DenseCLIPForSemanticSegmentation, image_processor: DenseCLIPImageProcessor, name: str
) -> "gradio.Blocks":
    """
    The page of one model, in evaluation mode and called `name`: its classes and, with language, any words.

    Raises:
        ImportError: where Gradio is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise ImportError('The web page needs Gradio: pip install "modeling-denseclip[web]"') from error

    # Some routes of Gradio pass its queue. Here the model gets one photograph at a time, and few wait.
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

    def segment_photograph(photograph: bytes | None) -> dict:
        found = answer_in_turn(lambda: find_classes(model, image_processor, read_upload(photograph)))
        if "error" in found:
            raise gradio.Error(found["error"], print_exception=False)
        return found

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
    computed = ", computed in bfloat16" if model.dtype == torch.bfloat16 else ""
    hint = f"{CLASS_HINT}\n\n{', '.join(names[:NAMED_CLASSES])}{more}"
    limit = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}
    with gradio.Blocks(
        title=f"DenseCLIP: {name}", analytics_enabled=False, delete_cache=(TEMPORARY_SECONDS // 4, TEMPORARY_SECONDS)
    ) as page:
        gradio.HTML(
            html_template="<h1>DenseCLIP</h1><p>{{value}}</p>",
            value=f"Semantic segmentation with {name}, {model.config.num_labels} classes{computed}",
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
                raise gradio.Error("A photograph is uploaded, not named by its address.", print_exception=False)
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
        # For programs: no event of the page.
        gradio.on(
            [],
            segment_photograph,
            upload,
            gradio.JSON(visible=False),
            **limit | {"api_visibility": "public"},
            api_name="segment",
            api_description="The class of each pixel of a photograph, as a PNG of ids in base64, and its classes.",
        )
        upload.clear(lambda: (None, None), None, [classes, texts], api_visibility="private")
    return page
