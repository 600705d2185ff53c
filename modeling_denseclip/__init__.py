"""DenseCLIP for Hugging Face Transformers. What goes to the Hub with a checkpoint lies flat in this folder."""

import os
import sys


def _is_command_starting() -> bool:
    """Whether this process is the `denseclip` command, started by its script or by `python -m`."""
    program = sys.argv[0] if sys.argv else ""
    name = os.path.basename(program)
    if name == "-m":
        return "modeling_denseclip.tools.command" in sys.orig_argv
    if name != "denseclip":
        return name == "denseclip.exe"
    try:
        with open(program, "rb") as script:
            return b"modeling_denseclip.tools.command" in script.read(10_000)  # others may call a program so too
    except OSError:
        return True


if _is_command_starting():
    # Until the command has begun, nobody else sees Ctrl-C.
    def _end_quietly(error_type, error, traceback):
        if issubclass(error_type, KeyboardInterrupt):
            os._exit(130)
        sys.__excepthook__(error_type, error, traceback)

    sys.excepthook = _end_quietly

    # PyTorch and Transformers take seconds to import, and help or an error about a file's name needs neither. So the
    # names below are imported when they are asked for; a verb of the command imports from the files that it needs.
    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import auto_classes_denseclip
        from .tools import pictures

        return getattr(auto_classes_denseclip if hasattr(auto_classes_denseclip, name) else pictures, name)

else:
    from .auto_classes_denseclip import (
        ClassNameReport,
        DenseCLIPConfig,
        DenseCLIPForSemanticSegmentation,
        DenseCLIPImageProcessor,
        DenseCLIPResNetBackbone,
        DenseCLIPResNetConfig,
        DenseCLIPSemanticSegmenterOutput,
        average_probabilities,
        multi_scale_inference,
        tokenize_class_names,
    )
    from .tools.pictures import plot_score_maps, plot_segmentation

__all__ = [
    "ClassNameReport",
    "DenseCLIPConfig",
    "DenseCLIPForSemanticSegmentation",
    "DenseCLIPImageProcessor",
    "DenseCLIPResNetBackbone",
    "DenseCLIPResNetConfig",
    "DenseCLIPSemanticSegmenterOutput",
    "average_probabilities",
    "multi_scale_inference",
    "plot_score_maps",
    "plot_segmentation",
    "tokenize_class_names",
]
