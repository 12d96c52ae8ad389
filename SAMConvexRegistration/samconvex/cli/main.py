"""The command ``samconvex``: finds the subcommand, runs it, turns errors into one sentence and an exit status.

0 done; 2 unusable input or arguments; 3 cancelled; 4 not enough memory or disk, or a failing device; 5 done, but a
check (commission, verify) did not pass; 1 our defect.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import os
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from ..errors import Cancelled, InputError, ResourceError, SamConvexError
from ..version import __version__
from .cancellation import PATIENCE_S, leave_now, run_cancellable

DEFECT = 1


@dataclass(frozen=True)
class Command:
    """A subcommand; its module is imported only when it is asked for, so that help costs no second.

    Attributes:
        name, help: as listed by ``samconvex --help``.
        module: module of this package that holds ``add_arguments(parser)`` and ``run(args) -> int | None``.
        add, run: other names of these two functions.
        patience_s: how long a first Ctrl-C waits for the work to stop by itself.
        quiet: hide what libraries print to stderr, so that an error is one sentence.
        passes_on: words that the command does not know itself become ``args.arguments``.
    """

    name: str
    help: str
    module: str
    add: str = "add_arguments"
    run: str = "run"
    patience_s: float = PATIENCE_S
    quiet: bool = True
    passes_on: bool = False


_ALL_COMMANDS = (
    Command(
        "register",
        "align a moving image with a fixed image; writes transform, warped image and report",
        "register",
    ),
    Command("match", "find points of one image in other images", "match", "add_match_arguments", "run_match"),
    Command(
        "template",
        "keep an image's landmarks and its embedding as a template for match",
        "template",
        "add_template_arguments",
        "run_template",
    ),
    Command("track", "find and measure the lesions of a baseline image in follow-up images", "track"),
    Command("evaluate", "measure how good a transform is: overlap, landmark error, folding", "evaluate"),
    Command("apply", "carry an image, a label map or points through a transform", "apply"),
    Command(
        "commission",
        "test this installation on known deformations, against limits as physicists use them",
        "commission",
    ),
    Command("verify", "run the registration of a report again and compare the results", "verify"),
    Command("train", "train a network on a folder of images", "train", patience_s=60.0, quiet=False),
    Command(
        "weights",
        "list, verify, import, remove or locate network weights",
        "weights",
        "add_weights_arguments",
        "run_weights",
    ),
    Command("presets", "list the presets with their expected time and memory", "presets"),
    Command("demo", "register two real chest CTs (or a phantom) and show the result", "demo", quiet=False),
    Command(
        "benchmark",
        "compare accuracy, time and memory with other tools (needs the repository)",
        "benchmark",
        quiet=False,
        passes_on=True,
    ),
)

# Slicer's extension comes without demo, training and benchmark.
COMMANDS = tuple(command for command in _ALL_COMMANDS if (Path(__file__).parent / f"{command.module}.py").is_file())


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(InputError.exit_status, f"{self.prog}: {message} (see {self.prog} --help).\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    as_program = arguments is None
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command, args = _parse(words)
    except SystemExit as end:
        return int(end.code or 0)
    except KeyboardInterrupt:
        return _complain(str(Cancelled()), Cancelled.exit_status)
    try:
        with _quiet_libraries() if as_program and command.quiet else contextlib.nullcontext():
            run = partial(_run, command, args)
            status = guarded(lambda: run_cancellable(run, command.patience_s, then_ends=as_program))
            if as_program and status == Cancelled.exit_status:
                leave_now(status)
    except KeyboardInterrupt:
        # Between the words and the work; during the work signals are handled there.
        return _complain(str(Cancelled()), Cancelled.exit_status)
    return status


def _parse(words: list[str]) -> tuple[Command, argparse.Namespace]:
    parser = _Parser(
        prog="samconvex",
        formatter_class=_Help,
        description="Registration, landmark matching and lesion tracking of CT and MR with anatomical embeddings.",
        epilog="Coordinates are LPS millimeters. Exit status: 0 done, 2 unusable input, 3 cancelled, 4 not enough "
        "memory or disk or a failing device, 5 a check did not pass (commission, verify), 1 a defect of ours. "
        "'samconvex COMMAND --help' explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"samconvex {__version__}")
    listing = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", parser_class=_Parser)
    named = next((word for word in words if not word.startswith("-")), None)
    for command in COMMANDS:
        subparser = listing.add_parser(
            command.name, help=command.help, description=_sentence(command.help), formatter_class=_Help
        )
        if command.name == named:
            _function(command, command.add)(subparser)
    args, unknown = parser.parse_known_args(words)
    if args.command is None:
        parser.error("name a command, such as register")
    command = next(command for command in COMMANDS if command.name == args.command)
    if command.passes_on:
        args.arguments = [word for word in unknown if word != "--"]
    elif unknown:
        listing.choices[command.name].error(f"unrecognized arguments: {' '.join(unknown)}")
    return command, args


class _Help(argparse.RawDescriptionHelpFormatter):
    """Wide enough for option names and their explanation on one line each."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _function(command: Command, name: str) -> Callable:
    return getattr(importlib.import_module(f".{command.module}", __package__), name)


def _run(command: Command, args: argparse.Namespace, cancelled: threading.Event) -> int:
    # Commands hand this to their ConsoleProgress, which raises Cancelled.
    args.cancelled = cancelled
    return int(_function(command, command.run)(args) or 0)


def guarded(work: Callable[[], int]) -> int:
    """Run ``work``; whatever goes wrong becomes one sentence on stderr and an exit status."""
    try:
        return work()
    except SamConvexError as error:
        return _complain(str(error), error.exit_status)
    except MemoryError:
        return _complain(_OUT_OF_MEMORY, ResourceError.exit_status)
    except BrokenPipeError:
        # The reader of our output has gone (as with "| head"); nothing is left to say to it.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return 0
    except Exception as error:
        reason = device_failure(error)
        if reason is not None:
            return _complain(reason, ResourceError.exit_status)
        traceback.print_exc()
        return _complain("This is a defect of samconvex; please report it with the lines above.", DEFECT)


_OUT_OF_MEMORY = (
    "The memory of this machine did not suffice; close other programs, choose --preset fast-preview or crop the images."
)


def device_failure(error: BaseException) -> str | None:
    """The sentence for torch's way of saying that memory ran out or a device failed; None for other errors."""
    from ..device import ran_out_of_memory

    text = str(error)
    if ran_out_of_memory(error):
        if type(error).__name__ == "OutOfMemoryError" or "CUDA" in text:
            return "The memory of the GPU did not suffice; use --device cpu, --preset fast-preview or crop the images."
        return _OUT_OF_MEMORY
    if "CUDA error" in text or "CUDA driver" in text or "NVIDIA driver" in text or "cuDNN error" in text:
        return f"The GPU failed ({text.splitlines()[0]}); use --device cpu."
    return None


def _complain(message: str, status: int) -> int:
    sys.stdout.flush()
    sys.stderr.write(" ".join(message.split()) + "\n")
    sys.stderr.flush()
    return status


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep native libraries (ITK, HDF5, GDCM) off stderr; what they said is dropped."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    previous = sys.stderr
    try:
        terminal = os.dup(2)
    except OSError:
        # No stderr at all, as under pythonw.
        yield
        return
    with tempfile.TemporaryFile() as hidden:
        previous.flush()
        os.dup2(hidden.fileno(), 2)
        sys.stderr = os.fdopen(terminal, "w", encoding=previous.encoding, errors="backslashreplace", buffering=1)
        faulthandler.enable(sys.stderr)
        try:
            yield
        finally:
            sys.stderr.flush()
            faulthandler.disable()
            os.dup2(terminal, 2)
            sys.stderr.close()
            sys.stderr = previous
