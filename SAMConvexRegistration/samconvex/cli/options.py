"""Options that several commands share."""

from __future__ import annotations

import argparse
import re

from ..settings.strength import STRENGTHS

EARLIER_STRENGTHS = {"gentle": "stiff", "standard": "normal", "strong": "flexible"}


def add_strength(parser: argparse._ActionsContainer, text: str) -> None:
    """The option --strength; its earlier names are still understood."""
    parser.add_argument(
        "--strength",
        type=lambda word: EARLIER_STRENGTHS.get(word, word),
        choices=STRENGTHS,
        default="normal",
        help=text,
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    """The option --device."""
    parser.add_argument("--device", type=device_name, default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N")


def add_machine(parser: argparse._ActionsContainer) -> None:
    """The options --device and --threads."""
    add_device(parser)
    parser.add_argument("--threads", type=positive_int, metavar="N", help="CPU threads (default: all cores)")


def add_weights(parser: argparse._ActionsContainer) -> None:
    """The option --weights."""
    parser.add_argument("--weights", metavar="NAME|FILE", help="network weights (default: the shipped ones)")


def add_progress(parser: argparse._ActionsContainer) -> None:
    """The option --progress."""
    parser.add_argument(
        "--progress",
        choices=("bar", "json", "none"),
        default="bar",
        help="a bar, one JSON object per line on stdout, or nothing",
    )


def device_name(text: str) -> str:
    """argparse type of --device."""
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", text) is None:
        raise argparse.ArgumentTypeError(f"{text} is no device; use auto, cpu, cuda or cuda:N")
    return text


def positive_int(text: str) -> int:
    """argparse type of a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def positive_float(text: str) -> float:
    """argparse type of a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return value
