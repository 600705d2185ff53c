# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
r"""
The console command `denseclip`.

A sub-command is a line of `SUB_COMMANDS` and two modules of that name: in `options/`, with `add_arguments(parser)` and
`check(args)`, which raises an error for what cannot be done, and in `commands/`, with `run(args)`, which returns the
exit status. The latter needs PyTorch, and is imported once the former has found nothing wrong.
"""

import argparse
import importlib
import io
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO


SUB_COMMANDS = {
    "predict": "segment photographs and videos, or show where they match any words",
    "info": "say what a model is: architecture, classes, parameters, cost, licence",
    "explain": "show why a model sees what it sees: score maps, and class names that it confuses",
    "web": "try a model on a web page of your own machine",
}
EPILOG = """examples:
  denseclip info user/model
  denseclip predict photos --model user/model --out results
  denseclip predict street.jpg --model user/model --out results \\
      --text "a bus stop" "a bicycle"
  denseclip web --model user/model

A model is a folder that `save_pretrained` wrote, or the id of a repository on
the Hub. `denseclip COMMAND --help` says what a command takes.

exit status: 0, all is done; 1, files were left out; 2, an error ended it;
130, Ctrl-C did.
"""
# What a terminal obeys instead of showing it: control characters, also those of 8 bits, and marks that turn the
# direction of writing. The first group is let through: line ends, tabs, and what progress bars and the reports of
# libraries write to go back to the first column, to go up a line, and to change the colour.
CONTROL = re.compile(r"(\r?\n|\t|\r|\x1b\[(?:A|[0-9;]*m))|[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# For names of files nothing is let through, and the Unicode separators of lines and paragraphs are controls too.
ANY_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def build_parser(named: str | None) -> argparse.ArgumentParser:
    """The parser, with the arguments of the sub-command that is named."""
    parser = argparse.ArgumentParser(
        prog="denseclip",
        description="Semantic segmentation with DenseCLIP: every pixel of a photograph gets a class that words name.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version, and end")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, summary in SUB_COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == named:
            options = importlib.import_module(f"modeling_denseclip.tools.options.{name}")
            options.add_arguments(subparser)
            subparser.set_defaults(check=options.check)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, of the words behind `denseclip`, by default those of the command line; returns the status."""
    argv = sys.argv[1:] if argv is None else list(argv)

    def work() -> int:
        parser = build_parser(argv[0] if argv else None)
        args = parser.parse_args(argv)
        if args.version:
            from importlib.metadata import version  # half of the time of `--help`

            print(f"denseclip {version('modeling-denseclip')}")
            return 0
        if not argv:
            parser.print_help()
            return 2
        args.check(args)
        return importlib.import_module(f"modeling_denseclip.tools.commands.{argv[0]}").run(args)

    return run_command(work, words=argv)


def run_command(work: Callable[[], object], error_status: int = 2, words: Sequence[str] | None = None) -> int:
    """
    Run what a command does, `denseclip` or one of `training`; returns the exit status. Errors that come from files,
    options or the machine are printed as one line, and mistakes of the code as a traceback.

    Classes and files may have any name: what the encoding of the output lacks, and what a terminal would obey, is
    printed as an escape.

    Args:
        work (`Callable[[], object]`): an integer that it returns is the exit status; anything else stands for 0.
        error_status (`int`, *optional*, defaults to 2): the exit status of errors. A command whose status 1 does not
            mean that files were left out may use 1.
        words (`Sequence[str]`, *optional*): of the command line, which are checked; by default those of this process.
    """
    with printing_escapes():
        try:
            check_words(sys.argv[1:] if words is None else words)
            status = work()
        except expected_errors() as error:
            print(escape_controls(f"error: {error}", but="\n\t"), file=sys.stderr)
            return error_status
        except MemoryError as error:
            print(f"error: there is too little memory{f': {error}' if str(error) else ''}", file=sys.stderr)
            return error_status
        except KeyboardInterrupt as stop:
            print(f"\nInterrupted. {stop}".rstrip(" "), file=sys.stderr)  # a line below a progress bar
            return 130
    return status if isinstance(status, int) else 0


def expected_errors() -> tuple[type[Exception], ...]:
    """Those that come from files, options or the machine."""
    # ImportError: an extra is not installed; StrictDataclassError: a config has values of a wrong type. Whoever raises
    # the latter has imported it; to do so here would take longer than all of `--help`.
    hub = sys.modules.get("huggingface_hub.errors")
    return (ImportError, OSError, ValueError, *([] if hub is None else [hub.StrictDataclassError]))


def escape_controls(text: str, but: str = "") -> str:
    """
    Write controls in a text about a file as escapes, since the name of a file may hold anything. Unlike in `CONTROL`,
    line ends and the codes of progress bars become escapes too, so that no name looks like another line of the output
    or overwrites one. Characters of `but` stay.
    """
    return ANY_CONTROL.sub(
        lambda found: found[0] if found[0] in but else found[0].encode("unicode_escape").decode(), text
    )


class EscapingStream:
    """A stream of text that shows what a terminal would obey; see `CONTROL`."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self.stream.write(CONTROL.sub(lambda found: found[1] or found[0].encode("unicode_escape").decode(), text))
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        self.write("".join(lines))


@contextmanager
def printing_escapes() -> Iterator[None]:
    """Print escapes for what the encoding of the output lacks, and for what a terminal would obey."""
    before = sys.stdout, sys.stderr
    for stream in before:
        # Others may have put something else in place of a stream, and may have chosen how it replaces.
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = within = tuple(map(EscapingStream, before))
    _move_logging(before, within)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        _move_logging(within, before)


def _move_logging(before: Sequence[TextIO], after: Sequence[TextIO]) -> None:
    """Let handlers of logging, which keep the stream that they were made with, write to the streams of now."""
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            for old, new in zip(before, after, strict=True):
                if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                    handler.setStream(new)


def check_words(words: Sequence[str]) -> None:
    """
    Refuse words of a command line that scripts give by mistake, such as an empty path, which would stand for the
    current folder.

    Raises:
        ValueError: for a word or a value that is empty or blank, begins with "~/", or holds a NUL character.
    """
    for index, word in enumerate(words):
        name, has_value, value = word.partition("=")
        if not (has_value and name.startswith("--")):
            value = word
            before = [other for other in words[:index] if other.startswith("--")]
            name = before[-1] if before else "The command"
        if not value.strip():
            raise ValueError(
                f"{name} has an empty word behind it, as of a variable that is not set: give it a value, or leave it"
                " away."
            )
        if value == "~" or value.startswith("~/"):
            raise ValueError(
                f"{name} has {value!r} behind it, a folder named ~, as no shell has replaced it: write $HOME instead."
            )
        if "\0" in value:
            raise ValueError(f"{name} has {value!r} behind it, and no name of a file can hold a NUL character.")


if __name__ == "__main__":
    sys.exit(main())
