"""Manifests: comma or semicolon, JSON, names, and every fault of every row in one table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from samconvex.cli.cohort import row_parser
from samconvex.cli.main import _parse
from samconvex.cohort.commands import COMMANDS, DECIDED, FILES, PARTS, WRITTEN, said, words
from samconvex.cohort.inspection import option_faults
from samconvex.cohort.manifest import fault_table, read_manifest
from samconvex.errors import InputError

PARSERS = {name: row_parser(name) for name in COMMANDS}


def _read(folder: Path, text: str, name: str = "rows.csv", encoding: str = "utf-8"):
    (folder / name).write_text(text, encoding=encoding)
    return read_manifest(folder / name, PARSERS)


def test_semicolons_decimal_commas_and_windows_letters_are_read(tmp_path: Path) -> None:
    text = "Name;Fixed;Moving;max-memory;Patient\r\nMüller 1;ä.nii.gz;sub/b.nii.gz;2,5;Müller\r\n;;;;\r\n"
    for encoding in ("cp1252", "utf-8-sig", "utf-16"):
        rows, faults = _read(tmp_path, text, encoding=encoding)
        assert faults == []
        assert [(row.number, row.name, row.patient) for row in rows] == [(2, "Müller 1", "Müller")]
        assert rows[0].values == {
            "fixed": str(tmp_path / "ä.nii.gz"),
            "moving": str(tmp_path / "sub" / "b.nii.gz"),
            "max_memory": "2.5",
        }


def test_json_and_csv_say_the_same(tmp_path: Path) -> None:
    header = "command,template,points,queries,also,min_score"
    rows, faults = _read(tmp_path, f"{header}\nmatch,t.nii.gz,p.csv,a.nii.gz|b.nii.gz,u.nii.gz|v.csv,0.5\n")
    entry = {
        "command": "match",
        "template": "t.nii.gz",
        "points": "p.csv",
        "queries": ["a.nii.gz", "b.nii.gz"],
        "also": [["u.nii.gz", "v.csv"]],
        "min-score": 0.5,
    }
    listed, others = _read(tmp_path, json.dumps({"rows": [entry]}), "rows.json")
    assert faults == others == []
    assert rows[0].values == listed[0].values
    assert [kind for column, kind, _ in rows[0].files() if column == "also"] == ["template", "points"]


def test_words_of_a_row_are_understood_by_the_single_command(tmp_path: Path) -> None:
    header = "fixed,moving,symmetric,preset,moving-labels,seed"
    rows, faults = _read(tmp_path, f"{header}\na.nii.gz,b.nii.gz,yes,rigid,l.nrrd,-3\nc.nii.gz,b.nii.gz,no,,,\n")
    assert faults == []
    said = [words(row.command, {**row.values, "output": "out"}, PARSERS["register"]) for row in rows]
    command, first = _parse(said[0])
    assert command.name == "register"
    assert (first.symmetric, first.preset, first.seed, first.output) == (True, "rigid", -3, "out")
    assert first.moving_labels == str(tmp_path / "l.nrrd")
    assert _parse(said[1])[1].symmetric is None


def test_a_course_of_lesions_is_a_row_too(tmp_path: Path) -> None:
    header = "command,baseline,lesions,follow_ups,files,course,dates,patient"
    rows, faults = _read(
        tmp_path,
        f"{header}\ntrack,b.mha,l.csv,f.mha|g.mha,,,2026-01-02|2026-02-03|2026-03-04,Anna\n"
        "track,,,,b.mha|l.csv|f.mha,,,\ntrack,,,f.mha,,c.json,,\ntrack,b.mha,,f.mha,,,,\n",
    )
    assert [(fault.row, fault.column) for fault in faults] == [(5, "lesions")]
    said = [_parse(words(row.command, {**row.values, "output": "out"}, PARSERS["track"]))[1] for row in rows[:3]]
    assert [[Path(path).name for path in args.files] for args in said] == [
        ["b.mha", "l.csv", "f.mha", "g.mha"],
        ["b.mha", "l.csv", "f.mha"],
        ["f.mha"],
    ]
    assert said[0].dates == ["2026-01-02", "2026-02-03", "2026-03-04"] and said[0].patient == "Anna"
    assert said[2].course == str(tmp_path / "c.json")
    assert [kind for _, kind, _ in rows[1].files()] == ["image", "lesions", "image"]


def test_every_fault_of_every_row_is_found_at_once(tmp_path: Path) -> None:
    rows = [
        "command,name,fixed,moving,affine,seed,colour,symmetric,threads",
        "register,one,a.nii.gz,b.nii.gz,sideways,x,,,",
        "register,ONE,a.nii.gz,,,,red,,4",
        "melt,three,a.nii.gz,b.nii.gz,,,,,",
        "register,../four,a.nii.gz,b.nii.gz,,,,perhaps,",
        "register,five,a.nii.gz,b.nii.gz,sam,1,,,,much",
        "register,six,a.nii.gz,b.nii.gz,sam,1,,yes,",
    ]
    _, faults = _read(tmp_path, "\n".join(rows) + "\n")
    assert [(fault.row, fault.column) for fault in faults] == [
        (2, "affine"),
        (2, "seed"),
        (3, "colour"),
        (3, "threads"),
        (3, "moving"),
        (3, "name"),
        (4, "command"),
        (5, "symmetric"),
        (5, "name"),
        (6, ""),
    ]
    table = fault_table(faults).splitlines()
    assert len(table) == 1 + len(faults)
    assert all(line.endswith(".") for line in table[1:])


def test_rows_without_a_name_get_one_of_their_own(tmp_path: Path) -> None:
    text = "fixed,moving,preset\na.nii.gz,b.nii.gz,\na.nii.gz,c.nii.gz,\na.nii.gz,c.nii.gz,rigid\n"
    rows, faults = _read(tmp_path, text)
    assert faults == []
    assert [row.name for row in rows] == ["b-a", "c-a-row3", "c-a-row4"]


@pytest.mark.parametrize("text", ["", "fixed,moving\n", "[]"])
def test_a_manifest_without_rows_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="has no row"):
        _read(tmp_path, text, "rows.json" if text == "[]" else "rows.csv")


def test_every_argument_that_names_a_file_is_known_as_one() -> None:
    """A file that the list forgets would neither be checked nor found beside the manifest."""
    for command, files in FILES.items():
        actions = {action.dest: action for action in PARSERS[command]._actions}
        for whole, parts in PARTS.get(command, {}).items():
            actions |= dict.fromkeys(parts, actions.pop(whole))
        assert set(files) <= set(actions)
        named = {
            name
            for name, action in actions.items()
            if name not in DECIDED and (not action.option_strings or set(_metavars(action)) & {"F", "FILE", "IMAGE"})
        }
        assert named | {"weights", "initial_network", "also"} & set(actions) == set(files) | set(WRITTEN) & set(actions)


def _metavars(action) -> tuple[str, ...]:
    return action.metavar if isinstance(action.metavar, tuple) else (action.metavar or "",)


def test_what_a_row_leaves_empty_comes_from_the_cohorts_own_words(tmp_path: Path) -> None:
    text = "command,fixed,moving,transform,input,like,preset\n,a.nii.gz,b.nii.gz,,,,\n,a.nii.gz,b.nii.gz,,,,rigid\n"
    (tmp_path / "rows.csv").write_text(text + "apply,,,t.h5,b.nii.gz,a.nii.gz,\n")
    rows, faults = read_manifest(tmp_path / "rows.csv", PARSERS, {"preset": "fast-preview", "symmetric": "yes"})
    assert faults == []
    assert [row.values.get("preset") for row in rows] == ["fast-preview", "rigid", None]
    assert [row.values.get("symmetric") for row in rows] == [True, True, None]
    _, command = _parse(["cohort", "rows.csv", "-o", "out", "--set", "moving-labels=l.nii.gz", "--set", "seed=1"])
    assert command.set == [("moving_labels", "l.nii.gz"), ("seed", "1")]
    for name in ("presets", "threads"):
        with pytest.raises(InputError, match=f"--set {name}: no row can have such an argument"):
            read_manifest(tmp_path / "rows.csv", PARSERS, {name: "1"})


def test_a_quotation_mark_that_is_not_closed_swallows_no_rows(tmp_path: Path) -> None:
    text = 'fixed,moving,patient\na.nii.gz,b.nii.gz,"Anna\na.nii.gz,c.nii.gz,Bert\n'
    with pytest.raises(InputError, match=r"rows.csv is no CSV .*close every quotation mark"):
        _read(tmp_path, text)
    rows, faults = _read(tmp_path, text.replace('"Anna', '"Anna, ""A."""'))
    assert faults == [] and [row.patient for row in rows] == ['Anna, "A."', "Bert"]


def test_a_report_that_a_row_writes_lies_with_its_results(tmp_path: Path) -> None:
    header = "command,baseline,lesions,follow_ups,dicom_sr\n"
    rows, faults = _read(tmp_path, header + "track,a,l.csv,b,sr.dcm\n")
    assert faults == []
    place = tmp_path / "out" / "jobs" / "a-b" / "sr.dcm"
    assert f"--dicom-sr={place}" in said(rows[0], tmp_path / "out", PARSERS["track"])
    for away in ("../sr.dcm", "/elsewhere/sr.dcm"):
        _, faults = _read(tmp_path, header + f"track,a,l.csv,b,{away}\n")
        assert [(fault.row, fault.column) for fault in faults] == [(2, "dicom_sr")]
        assert "give one without a folder" in faults[0].sentence


def test_days_of_a_course_are_checked_before_the_first_row(tmp_path: Path) -> None:
    header = "command,baseline,lesions,follow_ups,dates\n"
    rows, _ = _read(tmp_path, header + "track,a,l.csv,b,2026-01-01|20260301\ntrack,a,l.csv,c,2026-01-01|2026-13-01\n")
    faults = [fault for row in rows for fault in option_faults(row)]
    assert [(fault.row, fault.column) for fault in faults] == [(3, "dates")]
    assert "'2026-13-01', which is no day" in faults[0].sentence
