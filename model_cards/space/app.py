"""The page of the Space: what `denseclip web` serves, for one model."""

import os

from modeling_denseclip.tools.page.server import load_page, serve


# `python -m training.space` writes the model here. A variable of the Space goes before it.
MODEL = os.environ.get("DENSECLIP_MODEL", "you/denseclip-rn50")

if __name__ == "__main__":
    page = load_page(MODEL)
    print(*serve(page), flush=True)
    page.block_thread()
