# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
Mutation testing: is a small fault in the code that matters most seen by a test?

`make mutation`, or `OMP_NUM_THREADS=1 python -m tests.mutation [metric] [window] [score_map] [cache]`. The faults are
mutmut's: an argument left out or None, a number one higher, `<=` for `<`, `and` for `or`, and so on. mutmut itself
leaves decorated functions alone, and so most of the model; here a forked process that has collected the tests puts
each fault into the function in memory, so no file is touched and nothing is imported twice. A mutant is killed if a
test fails or does not come to an end. Survivors are printed, and counted also where no test could see them:
`.to(None)` where there is one device, `strict=False` for lists of one length. It fails if less than 90 % of the
mutants of a target are killed.

Functions are changed, but not their annotations and decorators, and not the wording of errors.
"""

import argparse
import contextlib
import difflib
import importlib
import inspect
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

import libcst
import libcst.metadata
import pytest
from mutmut.mutation.mutators import mutation_operators


REPOSITORY = Path(__file__).resolve().parents[1]
LEAST_SHARE_KILLED = 0.9
# What a mutant may take: this many times as long as the tests take without one, and bytes.
MOST_TIMES_AS_LONG = 5
MAX_MEMORY = 8 * 2**30
NOT_CHANGED = (libcst.Annotation, libcst.Decorator, libcst.Raise)

SEGMENTER = "modeling_denseclip.modeling_denseclip:DenseCLIPForSemanticSegmentation"
# What is changed, as "module:names of functions and classes", and the arguments of pytest for the tests that guard it.
TARGETS = {
    "metric": (
        ["training.metrics.mean_iou.mean_iou:"],
        ["tests/test_metrics.py", "tests/test_fuzzing.py::test_metric_counts_as_a_loop_over_pixels"],
    ),
    "window": (
        [
            f"{SEGMENTER}.forward",
            "modeling_denseclip.inference_denseclip:DenseCLIPInferenceMixin.sliding_window",
            "modeling_denseclip.inference_denseclip:DenseCLIPInferenceMixin.slide",
            "modeling_denseclip.inference_denseclip:DenseCLIPInferenceMixin.segment_windows",
            "modeling_denseclip.inference_denseclip:DenseCLIPInferenceMixin.segment_classes",
            "modeling_denseclip.inference_denseclip:average_windows",
            "modeling_denseclip.inference_denseclip:window_starts",
        ],
        [
            *("tests/test_modeling_denseclip.py", "tests/test_heads.py", "tests/test_fuzzing.py", "-k"),
            "window or classes or loss or labels or ignore_index or auxiliary or below_one_cell or outputs",
        ],
    ),
    "score_map": (
        [
            f"{SEGMENTER}.segment",
            f"{SEGMENTER}.encode_class_names",
            f"{SEGMENTER}.encode_prompts",
            f"{SEGMENTER}.embed_prompts_of_image",
            "modeling_denseclip.modeling_denseclip:compute_score_map",
            "modeling_denseclip.resizing_denseclip:resize_logits",
            "modeling_denseclip.loss_denseclip:loss_parts",
            "modeling_denseclip.loss_denseclip:pixel_cross_entropy",
            "modeling_denseclip.modeling_denseclip_prompting:embed_prompts",
            "modeling_denseclip.modeling_denseclip_prompting:prompt_attention_mask",
            "modeling_denseclip.modeling_denseclip_prompting:DenseCLIPContextAttention.forward",
            "modeling_denseclip.modeling_denseclip_prompting:DenseCLIPContextDecoderLayer.forward",
            "modeling_denseclip.modeling_denseclip_prompting:DenseCLIPContextDecoder.forward",
            "modeling_denseclip.modeling_denseclip_prompting:DenseCLIPLanguagePrompting.embed",
            "modeling_denseclip.modeling_denseclip_prompting:DenseCLIPPreModelPrompting.embed",
            "modeling_denseclip.modeling_denseclip_prompting:DenseCLIPPostModelPrompting.embed",
        ],
        [
            *("tests/test_prompting.py", "tests/test_heads.py", "tests/test_modeling_denseclip.py"),
            *("tests/test_losses.py", "tests/test_score_text.py", "-k"),
            "prompting or heads or score_map or loss or labels or outputs or half or attention or order_of_texts",
        ],
    ),
    "cache": (
        ["modeling_denseclip.text_cache_denseclip:", f"{SEGMENTER}.get_text_embeddings"],
        ["tests/test_text_cache.py"],
    ),
}


@dataclass(frozen=True)
class Mutant:
    """One fault: a function, which of its lines are other ones, and the source of the whole module with them."""

    module: str
    function: str
    old: str
    new: str
    source: str

    def __str__(self) -> str:
        return f"{self.module}:{self.function}\n    - {self.old}\n    + {self.new}"

    def apply(self):
        """Give the function, wherever it is referred to, the changed code and defaults."""
        module = importlib.import_module(self.module)
        changed = types.ModuleType(self.module)
        changed.__package__ = module.__package__
        with contextlib.redirect_stdout(None):
            exec(compile(self.source, module.__file__, "exec"), changed.__dict__)
        old, new = _find_function(module, self.function), _find_function(changed, self.function)
        old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__


def _find_function(module: types.ModuleType, name: str) -> Callable:
    found = module
    for part in name.split("."):
        found = inspect.getattr_static(found, part)
    if isinstance(found, property):
        found = found.fget
    elif isinstance(found, (classmethod, staticmethod)):
        found = found.__func__
    return inspect.unwrap(found)


class _Finder(libcst.CSTVisitor):
    """Collects the name of a function or method, a node in it, and the node that replaces it."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name
        self.scope: list[libcst.ClassDef | libcst.FunctionDef] = []
        self.found: list[tuple[str, libcst.CSTNode, libcst.CSTNode]] = []

    def on_visit(self, node: libcst.CSTNode) -> bool:
        if isinstance(node, NOT_CHANGED):
            return False
        functions = [index for index, parent in enumerate(self.scope) if isinstance(parent, libcst.FunctionDef)]
        if functions:
            # A function inside another is a part of that.
            name = ".".join(parent.name.value for parent in self.scope[: functions[0] + 1])
            if f"{name}.".startswith(f"{self.name}." if self.name else ""):
                for node_type, operator in mutation_operators:
                    if isinstance(node, node_type):
                        self.found.extend((name, node, mutation) for mutation in operator(node))
        if isinstance(node, (libcst.ClassDef, libcst.FunctionDef)):
            self.scope.append(node)
        return True

    def on_leave(self, original_node: libcst.CSTNode):
        if self.scope and original_node is self.scope[-1]:
            self.scope.pop()


def find_mutants(places: list[str]) -> Iterator[Mutant]:
    """All mutants of places as `TARGETS` names them."""
    for place in places:
        module_name, name = place.split(":")
        source = Path(importlib.import_module(module_name).__file__).read_text(encoding="utf-8")
        wrapper = libcst.MetadataWrapper(libcst.parse_module(source), unsafe_skip_copy=True)
        positions = wrapper.resolve(libcst.metadata.WhitespaceInclusivePositionProvider)
        finder = _Finder(name)
        wrapper.module.visit(finder)
        if not finder.found:
            raise ValueError(f"There is nothing to change in {place!r}.")
        lines = source.splitlines(keepends=True)
        for function, node, mutation in finder.found:
            start, end = positions[node].start, positions[node].end
            before, after = lines[start.line - 1][: start.column], lines[end.line - 1][end.column :]
            old_lines = lines[start.line - 1 : end.line]
            new_lines = (before + wrapper.module.code_for_node(mutation) + after).splitlines(keepends=True)
            diff = list(difflib.ndiff(old_lines, new_lines))
            old, new = (" ".join(line[1:].strip() for line in diff if line[0] == sign) for sign in "-+")
            if old != new:
                changed = "".join([*lines[: start.line - 1], *new_lines, *lines[end.line :]])
                yield Mutant(module_name, function, old, new, changed)


class _Runner:
    """A plugin of pytest that runs the collected tests once for each mutant, each time in a process of its own."""

    def __init__(self, mutants: list[Mutant], num_processes: int, folder: str):
        self.mutants = mutants
        self.num_processes = num_processes
        self.folder = folder
        self.num_survivors = 0
        self.num_timeouts = 0

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        # What killed one mutant often kills the next: those tests come first.
        items = list(session.items)
        process, receiver, start, _ = self.start(session, items, None)
        killer = self.outcome(process, receiver, None)
        seconds = time.monotonic() - start
        if killer is not None:
            raise RuntimeError(f"Without a mutant, {killer} fails.")
        print(f"{len(self.mutants)} mutants, {len(items)} tests, {seconds:.0f} s for all of them", flush=True)

        waiting, running, num_done = list(reversed(self.mutants)), [], 0
        while waiting or running:
            while waiting and len(running) < self.num_processes:
                running.append(self.start(session, items, waiting.pop()))
            wait([receiver for _, receiver, _, _ in running], timeout=1)
            for entry in list(running):
                process, receiver, start, mutant = entry
                is_late = time.monotonic() - start > MOST_TIMES_AS_LONG * seconds + 10
                if not (receiver.poll() or is_late):
                    continue
                if not receiver.poll():
                    process.kill()
                    self.num_timeouts += 1
                killer = self.outcome(process, receiver, mutant)
                running.remove(entry)
                num_done += 1
                if killer is None:
                    self.num_survivors += 1
                    print(f"[{num_done}/{len(self.mutants)}] survived: {mutant}", flush=True)
                items.sort(key=lambda item: item.nodeid != killer)
        return True

    def start(self, session: pytest.Session, items: list[pytest.Item], mutant: Mutant | None) -> tuple:
        """The process that tries a mutant, where it sends its outcome, and when it was started."""
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=self.run_tests, args=(session, items, mutant, sender))
        process.start()
        sender.close()
        return process, receiver, time.monotonic(), mutant

    def outcome(self, process: multiprocessing.Process, receiver, mutant: Mutant | None) -> str | None:
        """What killed a mutant: the name of a test or a signal; `None` if nothing did."""
        try:
            killer = receiver.recv()
        except EOFError:
            process.join()
            if process.exitcode >= 0:
                raise RuntimeError(f"The tests could not be run on {mutant}") from None
            killer = f"signal {-process.exitcode}"
        process.join()
        receiver.close()
        return killer

    def run_tests(self, session: pytest.Session, items: list[pytest.Item], mutant: Mutant | None, sender):
        """In a process of its own: send the name of the first test that fails, or `None`."""
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))
        os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.mkdtemp(dir=self.folder)
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        if mutant is not None:
            mutant.apply()
        for item, next_item in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=next_item)
            if session.testsfailed:
                sender.send(item.nodeid)
                return
        sender.send(None)


def run_target(name: str, num_processes: int) -> bool:
    """Whether enough mutants of a target are killed."""
    places, tests = TARGETS[name]
    mutants = list(find_mutants(places))
    print(f"== {name}", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="denseclip-mutation-", ignore_cleanup_errors=True) as folder:
        runner = _Runner(mutants, num_processes, folder)
        options = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--capture=no"]
        status = pytest.main([*options, *tests], plugins=[runner])
        if status != 0:
            raise RuntimeError(f"pytest ended with {status!r}.")
    num_killed = len(mutants) - runner.num_survivors
    print(
        f"{name}: {num_killed} of {len(mutants)} mutants killed ({num_killed / len(mutants):.1%}), "
        f"{runner.num_timeouts} of them by the limit of time; {time.monotonic() - start:.0f} s",
        flush=True,
    )
    return num_killed >= LEAST_SHARE_KILLED * len(mutants)


def main():
    parser = argparse.ArgumentParser(description="Mutation testing of the code that matters most.")
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help=f"some of {', '.join(TARGETS)}; or all")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="mutants at a time; by default one per core"
    )
    arguments = parser.parse_args()
    os.chdir(REPOSITORY)
    # A process with threads cannot be forked. `torch.set_num_threads` would leave none to tests that start threads.
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("PyTorch has to have one thread: OMP_NUM_THREADS=1 python -m tests.mutation")
    # All of them first, so that each is seen.
    enough = [run_target(name, arguments.processes) for name in arguments.targets or TARGETS]
    sys.exit(0 if all(enough) else 1)


if __name__ == "__main__":
    main()
