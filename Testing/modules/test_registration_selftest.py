"""The self test that Slicer runs also runs here."""

from __future__ import annotations

import pytest
import slicer


@pytest.fixture
def module(load_scripted_module, repository):
    load_scripted_module(repository / "SAMConvexRegistration" / "SAMConvexRegistration.py", enter=False)
    return slicer.modules.samconvexregistration


@pytest.mark.slow
def test_the_self_test_passes(module):
    assert "SAMConvexRegistration" in slicer.selfTests
    slicer.selfTests["SAMConvexRegistration"]()


def test_the_self_test_skips_the_engine_with_a_reason_where_torch_is_absent(module, monkeypatch):
    import SAMConvexRegistration

    shown = []
    monkeypatch.setattr(SAMConvexRegistration.dependencies, "torchVersion", lambda: None)
    monkeypatch.setattr(
        SAMConvexRegistration.SAMConvexRegistrationTest, "delayDisplay", lambda self, text, *more: shown.append(text)
    )
    slicer.selfTests["SAMConvexRegistration"]()
    assert "Skipped: PyTorch is not installed." in shown


def test_the_module_describes_itself(module):
    assert module.title == "SAMConvex Registration"
    assert module.categories == ["Registration"]
    assert "embedding" in module.helpText
    assert module.contributors and module.acknowledgementText
    assert not module.icon.isNull()
