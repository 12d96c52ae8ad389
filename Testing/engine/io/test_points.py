"""Points read from every promised format land at the same LPS millimeters, and come back from disk unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from samconvex.errors import InputError
from samconvex.io.points import PointSet, read_points, write_points
from samconvex.space.grid import Grid

LPS = np.array([[-1.0, -2.0, 3.0], [-4.0, -5.0, 6.0], [-7.0, -8.0, 9.0]])

# As 3D Slicer 5.13 writes them: a named point, one that was never placed, and one with turned axes.
SLICER_LPS = {
    "markups": [
        {
            "type": "Fiducial",
            "coordinateSystem": "LPS",
            "coordinateUnits": "mm",
            "controlPoints": [
                {
                    "label": "a,b",
                    "position": [-1.0, -2.0, 3.0],
                    "orientation": [-1.0, -0.0, -0.0, -0.0, -1.0, -0.0, 0.0, 0.0, 1.0],
                    "positionStatus": "defined",
                },
                {"label": "undef", "position": "", "orientation": [], "positionStatus": "undefined"},
                {
                    "label": 'q"x',
                    "position": [-7.0, -8.0, 9.0],
                    "orientation": [-0.0, 1.0, -0.0, -1.0, -0.0, -0.0, 0.0, 0.0, 1.0],
                    "positionStatus": "defined",
                },
            ],
        }
    ]
}
FCSV = """# Markups fiducial file version = 5.13
# CoordinateSystem = {system}
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
1,{sign}1,{sign}2,3,0,0,0,1,1,1,0,"a,b",,,2,0
2,{sign}4,{sign}5,6,0,0,0,1,1,1,0,undef,,,0,0
3,{sign}7,{sign}8,9,90.0,0,0,1,1,1,0,"q""x",,,2,0
"""


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _ras(markups: dict) -> dict:
    """The same file as Slicer writes it in RAS."""
    turned = json.loads(json.dumps(markups))
    turned["markups"][0]["coordinateSystem"] = "RAS"
    for point in turned["markups"][0]["controlPoints"]:
        if point["position"]:
            point["position"] = [-point["position"][0], -point["position"][1], point["position"][2]]
            point["orientation"] = [-v for v in point["orientation"][:6]] + point["orientation"][6:]
    return turned


def test_csv_columns_may_come_in_any_order_and_with_others(tmp_path: Path) -> None:
    path = _write(tmp_path / "p.csv", "\ufefflabel,Z,y,x,score\nfirst,3,-2,-1,0.9\n\nlost,,,,0.1\nthird,9,-8,-7,\n")
    points = read_points(path)
    np.testing.assert_allclose(points.positions[[0, 2]], LPS[[0, 2]])
    assert points.labels == ("first", "lost", "third")
    assert points.defined.tolist() == [True, False, True]


def test_csv_without_labels_is_read(tmp_path: Path) -> None:
    points = read_points(_write(tmp_path / "p.csv", "x,y,z\n-1,-2,3\n-4e0,-5,6\n"))
    np.testing.assert_allclose(points.positions, LPS[:2])
    assert points.labels == ("", "")


@pytest.mark.parametrize("markups", [SLICER_LPS, _ras(SLICER_LPS)], ids=["LPS", "RAS"])
def test_slicer_markups_honor_their_coordinate_system(tmp_path: Path, markups: dict) -> None:
    points = read_points(_write(tmp_path / "p.mrk.json", json.dumps(markups)))
    np.testing.assert_allclose(points.positions[[0, 2]], LPS[[0, 2]])
    assert points.defined.tolist() == [True, False, True]
    assert points.labels == ("a,b", "undef", 'q"x')
    assert points.orientations is not None
    np.testing.assert_allclose(points.orientations[0], np.diag([-1.0, -1.0, 1.0]))
    np.testing.assert_allclose(points.orientations[2], [[0, 1, 0], [-1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(("system", "sign"), [("LPS", "-"), ("1", "-"), ("RAS", ""), ("0", "")])
def test_fcsv_header_names_or_codes_its_coordinate_system(tmp_path: Path, system: str, sign: str) -> None:
    points = read_points(_write(tmp_path / "p.fcsv", FCSV.format(system=system, sign=sign)))
    np.testing.assert_allclose(points.positions[[0, 2]], LPS[[0, 2]])
    assert points.defined.tolist() == [True, False, True]
    assert points.labels == ("a,b", "undef", 'q"x')


def test_fcsv_without_a_header_is_ras(tmp_path: Path) -> None:
    points = read_points(_write(tmp_path / "p.fcsv", "vtkMRMLMarkupsFiducialNode_0,1,2,3,0,0,0,1,1,1,0,F-1,,\n"))
    np.testing.assert_allclose(points.positions, LPS[:1])


@pytest.mark.parametrize("ending", [".txt", ".pts"])
def test_elastix_points_are_lps_and_indices_need_their_image(tmp_path: Path, ending: str) -> None:
    path = _write(tmp_path / f"p{ending}", "point\n3\n-1 -2 3\n-4 -5 6\n-7 -8 9\n")
    np.testing.assert_allclose(read_points(path).positions, LPS)
    index = _write(tmp_path / f"i{ending}", "index\n1\n1 2 3\n")
    grid = Grid((9, 9, 9), (2.0, 3.0, 4.0), (10.0, 20.0, 30.0))
    np.testing.assert_allclose(read_points(index, grid).positions, [[12.0, 26.0, 42.0]])
    with pytest.raises(InputError, match="voxel indices"):
        read_points(index)


@pytest.mark.parametrize("name", ["out.csv", "out.mrk.json"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    positions = np.array([[-123.4567891, 0.0, 1e-6], [np.nan] * 3, [1.0 / 3.0, -2000.25, 7.0]])
    points = PointSet(positions, ("liver, left", "not found", "Z"))
    write_points(points, tmp_path / name)
    back = read_points(tmp_path / name)
    np.testing.assert_allclose(back.positions[[0, 2]], positions[[0, 2]], atol=1e-6)
    assert back.defined.tolist() == [True, False, True]
    assert back.labels == points.labels


def test_orientations_survive_a_round_trip(tmp_path: Path) -> None:
    source = read_points(_write(tmp_path / "p.mrk.json", json.dumps(_ras(SLICER_LPS))))
    write_points(source, tmp_path / "q.mrk.json")
    back = read_points(tmp_path / "q.mrk.json")
    assert source.orientations is not None and back.orientations is not None
    np.testing.assert_allclose(back.orientations, source.orientations)


def test_further_columns_follow_the_label(tmp_path: Path) -> None:
    write_points(PointSet(LPS[:1], ("a",)), tmp_path / "p.csv", columns={"score": [0.5]})
    assert (tmp_path / "p.csv").read_text(encoding="utf-8") == "x,y,z,label,score\n-1,-2,3,a,0.5\n"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.csv", "1,2,3\n", "header x,y,z"),
        ("p.csv", "", "header x,y,z"),
        ("p.csv", "x,y,z\n1,2,three\n", "line 2"),
        ("p.csv", "x,y,z\n1,2\n", "line 2"),
        ("p.csv", "x,y,z\n1,2,inf\n", "line 2"),
        ("p.csv", "x,y,z\n", "no point"),
        ("p.mrk.json", "{", "no Slicer markups file"),
        ("p.mrk.json", '{"markups": [{"controlPoints": [{"position": [1, 2]}]}]}', "control point 1"),
        ("p.mrk.json", '{"markups": [{"coordinateUnits": "um", "controlPoints": [{}]}]}', "millimeters"),
        ("p.fcsv", "# CoordinateSystem = 2\n1,1,2,3\n", "IJK"),
        ("p.txt", "point\n2\n1 2 3\n", "announces 2"),
        ("p.txt", "hello world", "no elastix"),
        ("p.doc", "x,y,z\n1,2,3\n", "no point file"),
    ],
)
def test_an_unusable_file_is_named_with_the_way_out(tmp_path: Path, name: str, text: str, says: str) -> None:
    path = _write(tmp_path / name, text)
    with pytest.raises(InputError, match=says) as caught:
        read_points(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_an_unknown_output_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_points(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"\.csv or \.mrk\.json"):
        write_points(PointSet(LPS), tmp_path / "p.fcsv")


@pytest.mark.parametrize(
    "text",
    [
        "x;y;z;label\n-1,0;-2,0;3,0;a\n",
        '"X";"Y";"Z";"Label"\n-1,0;-2,0;3,0;"a"\n',
        "sep=;\nx;y;z;label\n-1;-2;3;a\n",
        "x\ty\tz\tlabel\n-1,0\t-2,0\t3,0\ta\n",
        "x,y,z,label\n-1.0,-2.0,3.0,a\n",
        'x,y,z,label\n"-1.0","-2.0","3.0","a"\n',
    ],
)
def test_csv_of_european_spreadsheets(tmp_path, text) -> None:
    points = read_points(_write(tmp_path / "p.csv", text))
    np.testing.assert_array_equal(points.positions, LPS[:1])
    assert points.labels == ("a",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_csv_in_the_encodings_of_spreadsheets(tmp_path, encoding) -> None:
    (tmp_path / "p.csv").write_bytes("x;y;z;label\n-1,0;-2,0;3,0;Größe\n".encode(encoding))
    assert read_points(tmp_path / "p.csv").labels == ("Größe",)


def test_decimal_commas_between_commas_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="line 2 has 6 cells but the header 3.*semicolons"):
        read_points(_write(tmp_path / "p.csv", "x,y,z\n-1,0,-2,0,3,0\n"))


def test_units_as_the_schema_allows_them(tmp_path) -> None:
    markup = json.loads(json.dumps(SLICER_LPS))
    for units, fine in ((["mm", "UCUM", "millimeter"], True), (["um", "UCUM", "micrometer"], False)):
        markup["markups"][0]["coordinateUnits"] = units
        path = _write(tmp_path / "p.mrk.json", json.dumps(markup))
        if fine:
            np.testing.assert_array_equal(read_points(path).positions[0], LPS[0])
        else:
            with pytest.raises(InputError, match="is in um"):
                read_points(path)


def test_points_of_another_shape_are_refused() -> None:
    for points in (np.zeros((3, 5)), np.zeros((2, 2)), np.zeros((1, 1, 3))):
        with pytest.raises(InputError, match="N rows of x, y, z"):
            PointSet(points)


@pytest.mark.parametrize("row", ["1,5,2,3", "1_0,2,3"])
def test_numbers_that_a_spreadsheet_wrote_otherwise_are_refused(tmp_path: Path, row: str) -> None:
    (tmp_path / "p.csv").write_text(f"x,y,z\n{row}\n")
    with pytest.raises(InputError, match="line 2"):
        read_points(tmp_path / "p.csv")


def test_a_label_without_a_header_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("x,y,z\n1,2,3,carina\n")
    assert read_points(tmp_path / "p.csv").positions.tolist() == [[1.0, 2.0, 3.0]]
