"""report.json's promised fields as a JSON schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema

NUMBER, TEXT, OBJECT = {"type": "number"}, {"type": "string"}, {"type": "object"}
NUMBERS = {"type": "object", "additionalProperties": NUMBER}
IMAGE = {
    "type": "object",
    "required": ["path", "size", "spacing", "sha256"],
    "properties": {"path": TEXT, "size": {"type": "array"}, "spacing": {"type": "array"}, "sha256": TEXT},
}


def having(fields: dict[str, Any], **further: Any) -> dict[str, Any]:
    """An object that must have all of ``fields``."""
    return {"type": "object", "required": list(fields), "properties": {**fields, **further}}


DISTANCES = having({key: NUMBER for key in ("mean", "median", "p95", "max")})
SCHEMA = having(
    {
        "version": TEXT,
        "preset": TEXT,
        "settings": OBJECT,
        "device": TEXT,
        "threads": {"type": "integer"},
        "inputs": having({"fixed": IMAGE, "moving": IMAGE}),
        "seconds": having({"total": NUMBER, "stages": NUMBERS}),
        "peak_memory_mib": NUMBER,
        "folding_percent": NUMBER,
        "sdlogj": NUMBER,
        "sdlogj_learn2reg": NUMBER,
        "overlap_percent": NUMBER,
        "expected_error_mm": having(
            {"median": NUMBER, "p90": NUMBER, "max": NUMBER}, family=TEXT, own_calibration={"type": "boolean"}
        ),
        "inverse_consistency_mm": having({key: NUMBER for key in ("mean", "p95", "max")}),
        "warnings": {"type": "array", "items": TEXT},
        "verdict": having(
            {
                "level": {"enum": ["good", "check", "do not use"]},
                "reasons": {"type": "array", "items": TEXT},
                "evidence": NUMBERS,
            }
        ),
    },
    dice=having({"initial": NUMBERS, "final": NUMBERS, "initial_mean": NUMBER, "final_mean": NUMBER}),
    tre_mm=having({"initial": DISTANCES, "final": DISTANCES, "n": {"type": "integer"}}),
)


def schema_errors(report: Mapping[str, Any]) -> list[str]:
    """How a report of ``register`` departs from the schema; empty where it does not."""
    found = jsonschema.Draft202012Validator(SCHEMA).iter_errors(report)
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in found]
