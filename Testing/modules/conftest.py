"""Tests in the stand-in application: real MRML, no display."""

from harness.fixtures import *  # noqa: F403
