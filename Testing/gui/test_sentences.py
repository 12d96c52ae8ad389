"""The list of sentences for reading through holds what users can read, and no names of classes."""

from __future__ import annotations

from gui import sentences


def test_panels_and_engine_are_listed_once_and_without_what_is_not_read():
    panels, engine = sentences.sentences(("panels",)), sentences.sentences(("engine",))
    assert panels["Choose the fixed volume."].startswith("SAMConvexRegistration/SAMConvexRegistrationLib/request.py:")
    assert "Where templates are kept: one folder per template. A shared folder serves a whole department." in panels
    assert "{path} does not exist; check the path{f' {what}' if what else ''}." in engine
    assert "of the image; aim at 0" in engine and "stop cleanly after this time of work (default 60)" in engine
    assert not [text for text in panels if text.startswith(("vtkMRML", "*."))]
    assert sentences.sentences() == engine | panels


def test_what_users_are_told_to_do_ends_as_a_sentence():
    told = {text: where for text, where in sentences.sentences(("engine",)).items() if text.count(";") == 1}
    fragments = [
        text for text in told if text[0] == "{" and text.split(";")[0].count(" ") > 3 and text[-1] not in ".})"
    ]
    assert fragments == []
