"""The self test that Slicer runs also runs here, with the real engine."""

from __future__ import annotations

import pytest
import slicer


@pytest.fixture
def module(load_scripted_module, repository):
    load_scripted_module(repository / "SAMLandmark" / "SAMLandmark.py", enter=False)
    return slicer.modules.samlandmark


@pytest.mark.slow
def test_the_self_test_passes(module, monkeypatch, tmp_path):
    monkeypatch.setenv("SAMCONVEX_HOME", str(tmp_path))
    assert "SAMLandmark" in slicer.selfTests
    slicer.selfTests["SAMLandmark"]()


def test_the_self_test_skips_the_engine_with_a_reason_where_torch_is_absent(module, monkeypatch):
    import SAMLandmark

    shown = []
    monkeypatch.setattr(SAMLandmark.dependencies, "torchVersion", lambda: None)
    monkeypatch.setattr(SAMLandmark.SAMLandmarkTest, "delayDisplay", lambda self, text, *more: shown.append(text))
    slicer.selfTests["SAMLandmark"]()
    assert "Skipped: PyTorch is not installed." in shown


def test_the_module_describes_itself_and_offers_a_sample(module):
    import SampleData

    assert module.title == "SAM Landmarks" and module.categories == ["Registration"]
    assert "embedding" in module.helpText and module.contributors and module.acknowledgementText
    assert not module.icon.isNull()
    assert any(source.sampleName == "SAMConvexChestLandmarks" for source in SampleData.SampleDataLogic.sources)
