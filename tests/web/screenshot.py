# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Take the picture of the page that stands in the README, docs/images/web.png: a painted scene, and the demo's model.

    make demo
    .venv-web/bin/python -m tests.web.screenshot demo_output/model \
        demo_output/scenes/images/validation/scene_0000.png docs/images/web.png
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import PIL.Image

from modeling_denseclip.tools.files.loading import load_model
from modeling_denseclip.tools.files.saving import save_whole
from modeling_denseclip.tools.page.server import build_page, serve
from tests.web.browser import open_browser, upload


SIZE = {"width": 1080, "height": 780}
COLORS = 256  # a palette makes half of the file


def main(argv: Sequence[str] | None = None) -> None:
    model, photo, target = sys.argv[1:] if argv is None else argv
    page = build_page(*load_model(model), name="the demo's model")
    address = serve(page, host="127.0.0.1")[0]
    with open_browser() as browser:
        view = browser.new_context(viewport=SIZE).new_page()
        view.goto(address)
        upload(view, Path(photo))
        canvas = view.locator("#classes canvas").bounding_box()
        view.mouse.move(canvas["x"] + 0.28 * canvas["width"], canvas["y"] + 0.55 * canvas["height"])
        view.locator("#classes .tip").wait_for()
        picture = PIL.Image.open(io.BytesIO(view.screenshot())).convert("RGB")
    page.close()
    save_whole(Path(target), picture.quantize(COLORS, dither=PIL.Image.Dither.NONE).save)


if __name__ == "__main__":
    main()
