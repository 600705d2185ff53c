# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""`denseclip web`: serve a page on which people segment photographs in their browser."""

import argparse
import signal
import socket
import sys

from ..page.server import load_page, serve


def run(args: argparse.Namespace) -> int:
    """
    Serve until Ctrl-C, or until the process is asked to end, as systemd and Docker do.

    Raises:
        ValueError: for a model or a device that does not serve.
        OSError: for a port that is taken, or a model that cannot be reached.
        ImportError: where Gradio is not installed.
    """
    try:  # before the model is loaded, which may take minutes
        socket.create_server((args.host, args.port)).close()
    except (OSError, OverflowError) as error:
        raise OSError(f"The page cannot listen at {args.host}:{args.port} ({error}): name another --port.") from error
    page = load_page(args.model, args.device, args.tokenizer, args.revision, args.dtype)
    # So Python ends as usual, and removes the uploads.
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: sys.exit(0))
    addresses = serve(page, host=args.host, port=args.port, share=args.share == "yes")
    print(f"{args.model} is at {' and '.join(addresses)} until you press Ctrl-C.", flush=True)
    page.block_thread()
    return 0
