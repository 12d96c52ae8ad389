"""What is held of images: within limits, and no longer than the images live."""

from __future__ import annotations

import gc

import torch
from samconvex.anatomy.known import Known, Recent


def test_the_answer_not_used_for_longest_goes():
    held: Recent[int] = Recent(2)
    held.keep("a", 1)
    held.keep("b", 2)
    assert held.get("a") == 1
    held.keep("c", 3)
    assert (held.get("a"), held.get("b"), held.get("c")) == (1, None, 3)


def test_bytes_are_limited_but_the_newest_stays():
    held: Recent[int] = Recent(9, limit=10, size=lambda answer: answer)
    held.keep("a", 6)
    held.keep("b", 7)
    assert (held.get("a"), held.get("b")) == (None, 7)
    assert held.keep("c", 99) == 99 and held.get("c") == 99 and held.get("b") is None


def test_what_is_known_of_a_tensor_goes_with_it():
    known, tensor = Known(), torch.zeros(3)
    # Another tensor of the same values is another tensor.
    known.bodies[tensor] = "body"
    assert known.bodies.get(torch.zeros(3)) is None and known.bodies.get(tensor) == "body"
    del tensor
    gc.collect()
    assert len(known.bodies) == 0
