"""What this process has found out about images and still holds, in one object."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from torch.utils.weak import WeakIdKeyDictionary

T = TypeVar("T")


class Recent(Generic[T]):
    """The last answers by their keys, within limits.

    Args:
        entries: how many at most.
        limit, size: bytes that all may take, and of one answer.
    """

    def __init__(self, entries: int, limit: int | None = None, size: Callable[[T], int] | None = None) -> None:
        self._entries, self._limit, self._size = entries, limit, size
        self._held: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str) -> T | None:
        """The answer, which counts as used now; None where it is not held."""
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def keep(self, key: str, answer: T) -> T:
        """Hold an answer; the ones not used for longest go, the newest never."""
        self._held[key] = answer
        while len(self._held) > 1 and self._too_much():
            self._held.popitem(last=False)
        return answer

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()

    def _too_much(self) -> bool:
        if len(self._held) > self._entries:
            return True
        return (
            self._limit is not None
            and self._size is not None
            and sum(map(self._size, self._held.values())) > self._limit
        )


class Known:
    """Answers about images: kept by content, or for as long as what they are about lives.

    Attributes:
        embeddings, organs: by the checksum of everything that they depend on. Two or three large CTs; the vectors for
            searching, made on demand, come on top.
        bodies, checksums: of a tensor.
        anatomies: of an embedding.
        affines: of two embeddings.
    """

    def __init__(self) -> None:
        self.embeddings: Recent[Any] = Recent(6, 1 << 30, lambda embedding: embedding.bytes)
        self.organs: Recent[Any] = Recent(6)
        self.bodies: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.checksums: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.anatomies: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self.affines: WeakKeyDictionary[Any, WeakKeyDictionary] = WeakKeyDictionary()

    def clear(self) -> None:
        """Forget everything."""
        for held in (self.embeddings, self.organs, self.bodies, self.checksums, self.anatomies, self.affines):
            held.clear()


# The process owns it: a registration asks for the same body three times, a panel for the same embedding all day.
KNOWN = Known()
