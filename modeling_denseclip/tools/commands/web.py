# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""`denseclip web`: serve a page on which people segment photographs in their browser."""

import argparse
import signal
import socket
import sys

from ..files.loading import DTYPES
from ..page.server import load_page, serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="MODEL", required=True, help="a DenseCLIP: a folder or a Hub id")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a model on the Hub")
    parser.add_argument("--port", type=int, default=7860, help="of the page; default: %(default)s")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen at; 0.0.0.0 lets other machines in. Default: %(default)s, this machine alone",
    )
    parser.add_argument(
        "--share",
        choices=("yes", "no"),
        default="no",
        help="yes makes a public address by way of Gradio's servers; default: %(default)s",
    )
    parser.add_argument("--tokenizer", metavar="DIR_OR_ID", help="CLIP's tokenizer; by default the one beside MODEL")
    parser.add_argument("--device", help="such as cpu, cuda:1 or mps. By default a GPU of CUDA if there is one")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="what numbers the model computes in, as in denseclip predict: auto is bfloat16 where the processor"
        " multiplies in it, and float32 elsewhere. In bfloat16 cosines of words are off by some hundredths",
    )


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
