"""The verdict follows from the evidence alone: what speaks against a result is said, and silence is not good."""

from __future__ import annotations

import pytest
from samconvex.report.verdict import CHECK, DO_NOT_USE, GOOD, LIMITS, NOT_COMPARED, sentence, verdict

# Of a pair of heads that ended well.
SOUND = {
    "covered_percent": 98.0,
    "body_agreement": 0.96,
    "bone_agreement": 0.75,
    "scale": 0.98,
    "stretch": 1.1,
    "near_percent": 80.0,
    "near_gain": 0.8,
    "shared_information": 0.3,
    "anatomy_there_percent": 97.0,
    "anatomy_similarity": 0.9,
    "turned": 0.0,
    "mirrored": 0.0,
}


def test_sound_evidence_is_good_and_needs_no_reason() -> None:
    for same_patient in (False, True):
        judged = verdict(SOUND, same_patient=same_patient)
        assert (judged["level"], judged["reasons"]) == (GOOD, []) and judged["evidence"] == SOUND


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: f"{limit.figure}-{limit.same}")
def test_every_limit_is_reached_just_beyond_its_figure(limit) -> None:
    step = 1e-6 if limit.high else -1e-6
    for bound, least in ((limit.check, 1), (limit.reject, 2)):
        if bound is None:
            continue
        beyond = verdict(SOUND | {limit.figure: bound + step}, same_patient=bool(limit.same))
        assert (GOOD, CHECK, DO_NOT_USE).index(beyond["level"]) >= least and beyond["reasons"]
    bound = limit.check if limit.check is not None else limit.reject
    short = verdict({"near_percent": 80.0, limit.figure: bound - step}, same_patient=bool(limit.same))
    assert limit.reason.format(value=bound - step) not in short["reasons"]


def test_without_a_comparison_nothing_is_good() -> None:
    judged = verdict({"covered_percent": 100.0, "folding_percent": 0.0})
    assert judged["level"] == CHECK and judged["reasons"] == [NOT_COMPARED]
    assert verdict({})["level"] == CHECK


def test_the_gravest_reason_comes_first_and_one_kind_of_evidence_speaks_once() -> None:
    judged = verdict(SOUND | {"turned": 1.0, "anatomy_there_percent": 2.0, "anatomy_similarity": 0.0})
    assert judged["level"] == DO_NOT_USE
    assert "2 %" in judged["reasons"][0] and "turned" in judged["reasons"][-1] and len(judged["reasons"]) == 2


def test_what_two_patients_may_differ_by_one_patient_may_not() -> None:
    larger = SOUND | {"scale": 1.13}
    assert verdict(larger)["level"] == GOOD and verdict(larger, same_patient=True)["level"] == CHECK


def test_edges_between_modalities_ask_for_a_look_and_never_reject() -> None:
    found = SOUND | {"across_near_percent": 0.0, "across_near_gain": 0.0}
    assert verdict(found)["level"] == CHECK
    assert verdict({"across_near_percent": 50.0, "across_near_gain": 0.6})["level"] == GOOD


def test_reasons_name_no_method() -> None:
    words = " ".join(limit.reason for limit in LIMITS).lower()
    for method in ("embedding", "mind", "affine", "jacobian", "sam", "descriptor", "determinant", "confidence"):
        assert f" {method}" not in f" {words}".replace("same", "")


def test_the_line_for_the_terminal_is_loud() -> None:
    assert sentence(verdict(SOUND | {"mirrored": 1.0})).startswith("VERDICT: DO NOT USE. The result exchanges")
    assert sentence(verdict(SOUND)) == "VERDICT: GOOD."
