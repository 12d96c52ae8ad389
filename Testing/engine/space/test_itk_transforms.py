"""Transform files and HDF5 files that ITK does not survive are refused; sound ones mean what ITK takes them for."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from campaigns import seeds
from samconvex.errors import InputError
from samconvex.io.images import read_volume
from samconvex.space import hdf5
from samconvex.space.grid import Grid
from samconvex.space.itk_transforms import read_itk
from samconvex.space.transforms import Transform

POINTS = np.array([[-14.0, 18.0, 306.0], [-10.0, 14.0, 312.0]])
# A composite of an inverse translation (float, misspelt names) and a field of (1, 2, 3) mm (chunks of 100, deflate,
# shuffle), in the layout of HDF5 before 1.8; written with h5py, libver "earliest".
OLD_LAYOUT = (
    "c-rk+O-vI(6rSCsumO#Q7%8Z9H6byIq)-ku0jZ%tjVMHk@nEEtZbOspPugPY!HB5`yve~tZzf)P^yH1Co+L5c@gS0T@nYiH3+{H`"
    "?9bRAKy8YB-(g?h&+JU5Z{C}Ev(JKosiW<^?L>npk{045R_p?#%XXgXLqIv8t3V4pm2)MX3*?>fe%5aO=H#Siy~}|1<7v^Uiy)d2"
    "!O1Ig8odMjIiMT7-R|oAwcBz!6H6w*uhQW}CYnsgr_;&hl<B9QJ@(5Hhu(&xyzYS<$JzXzQbE;gzkAe&=IKsDCzhTLm1;cC>tYe!"
    "CvafEtUq(5GzM<nm<@1*r-LPuP~D!c*PO#XPp^S@HtB+{6c^cfsTCKclNcA985Q#@2nxN`+iPjnDVl3@dSZ5lvxFheVyD47I9v*y"
    "H0+)RI+2X0l9^amHUjQKB)NQFkr%uR-cnrD(NE)a;(;2bb!#P@RpYhUFsdZOS!mb7v<t*CDJ8rp$K^zJDkdwD3jI;|j-ihr5C{YU"
    "fj}S-2m}Jbf~~VkKs`)>iPletfDRLTy}-B6erwgaa!_ax@h?KZBxb#9gQ;&B<)Hb8DcRzW{sZ=_*SiJ7?}}}9KWFP~w0d9cv)ei0"
    "!s1(>ef%M}-L5bQ?{)uQ|6l#?QJj+fpP*>Odlci+hb*1KHGVL^DqsI**Bcu@f<Q%g_4uLj8ao$GhvRZqPG?LzO+FRN$q|dvSnoB)"
    "$F6fazPDgE2Q)QS-}%(iEWHoVYW)2cUa#R7$F&C`D}Jj^tJCN1Erwi<H!DAP1fgwnZ9Ok+c9MYi(g&(&UHK|(uI2M%s=V;Uw`DX?"
    "<=@xx>ze(?ZQqXVMW4ja19ywt@1H176DQPJ>v?tdI?OQy_2WQYwSv6AJpD0Vz1g4Y5eNhVfoOEpI*0o&;5odx_uKV4$4Q6i948p{"
    "u$LFB+tYKv>Ogfny1qQ;(XY(2hn4Dn)hW5*8zG5wi=_K8=uN-k8Nc#?Uma;^zp6DKEDk;&Y=m#j`KXnbwuUe-VP2|7UK%}=c_}oy"
    "x4a~I_m-D7Jk8=)tyTSM3FMTTad;f&%1=f*$jGk1#9={?!yUv|;yL)BmM`f!l37}gMitqZZw}-UIjV%SvhiK4;g>w`8PP=%dl(G<"
    "^*GF_y|Zz+r-J>AWcRNKqn8=|2BUuj`ZK@}FzN4wWap_K^8f;YKp+r}yD#qoyDqZN{nKyf*mtlKc;3+aa$_G==AJoI=Azk<vlq?G"
    "c_#Fa#`z1L#Aiw"
)


def _chain(count: int) -> sitk.CompositeTransform:
    parts = []
    for number in range(count):
        part = sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.01 * number, -0.02, 0.03, (number, 1.0, -2.0))
        parts.append(part)
    return sitk.CompositeTransform(parts)


def _linear() -> list[sitk.Transform]:
    made: list[sitk.Transform] = [
        sitk.AffineTransform((1.1, 0.1, 0, -0.1, 0.9, 0, 0, 0, 1), (5, -4, 3), (1, 2, 3)),
        sitk.Euler3DTransform((1, 2, 3), 0.1, 0.2, 0.3, (4, 5, 6)),
        sitk.VersorTransform((0, 0, 1), 0.4, (1, 2, 3)),
        sitk.VersorRigid3DTransform((0, 0, 1), 0.4, (1, 2, 3)),
        sitk.Similarity3DTransform(1.2, (0, 0, 1), 0.4, (1, 2, 3)),
        sitk.ScaleVersor3DTransform((1.1, 1.2, 0.8), (0, 0, 1), 0.3, (1, 2, 3)),
        sitk.ScaleSkewVersor3DTransform((1.1, 1.2, 0.8), (0.1,) * 6, (0, 0, 1), 0.3, (1, 2, 3)),
        sitk.ScaleTransform(3, (1.1, 0.9, 1.3)),
        sitk.TranslationTransform(3, (1, 2, 3)),
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.Transform(3, sitk.sitkQuaternionRigid),
        sitk.Transform(3, sitk.sitkScaleLogarithmic),
    ]
    made[-2].SetParameters((0.1, 0.2, 0.3, 0.9, 4, 5, 6))
    made[-1].SetParameters((0.1, 0.2, -0.3))
    return made


@pytest.mark.parametrize("ending", [".h5", ".tfm", ".mat"])
def test_every_linear_class_is_read_as_itk_writes_it(tmp_path: Path, ending: str) -> None:
    for number, transform in enumerate(_linear()):
        path = tmp_path / f"{number}{ending}"
        sitk.WriteTransform(transform, str(path))
        expected = [transform.TransformPoint(tuple(point)) for point in POINTS]
        np.testing.assert_allclose(Transform.load(path).map_points(POINTS), expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("ending", [".h5", ".tfm"])
@pytest.mark.parametrize("kind", ["affine", "composite", "bspline"])
def test_a_file_means_what_itk_takes_it_for(tmp_path: Path, ending: str, kind: str) -> None:
    path = tmp_path / f"t{ending}"
    path.write_bytes(seeds.transform_bytes(ending, kind))
    itk = sitk.ReadTransform(str(path))
    if kind == "bspline":
        itk.SetParameters(np.random.default_rng(0).normal(0, 3, itk.GetNumberOfParameters()).tolist())
        sitk.WriteTransform(itk, str(path))
    read = read_itk(path)[0]
    for point in POINTS.tolist():
        np.testing.assert_allclose(read.TransformPoint(point), itk.TransformPoint(point), rtol=0, atol=1e-9)


def test_a_chain_of_many_parts_is_read(tmp_path: Path) -> None:
    # From nine parts on HDF5 keeps a group's names in another way.
    sitk.WriteTransform(_chain(12), str(tmp_path / "t.h5"))
    expected = [_chain(12).TransformPoint(tuple(point)) for point in POINTS]
    np.testing.assert_allclose(Transform.load(tmp_path / "t.h5").map_points(POINTS), expected, atol=1e-9)


def test_the_old_layout_of_hdf5_is_read(tmp_path: Path) -> None:
    content = zlib.decompress(base64.b85decode(OLD_LAYOUT))
    (tmp_path / "t.h5").write_bytes(content)
    mapped = Transform.load(tmp_path / "t.h5").map_points([[2.0, 2, 2], [20, 20, 20]])
    np.testing.assert_allclose(mapped, [[1.5, 6, 1], [18.5, 22, 16]], atol=1e-6)
    damaged = bytearray(content)
    # The address of the field's first chunk leads back to the tree that names it.
    tree = content.rindex(b"TREE")
    damaged[tree + 24 + 24 : tree + 24 + 32] = struct.pack("<Q", tree)
    (tmp_path / "t.h5").write_bytes(damaged)
    with pytest.raises(InputError, match=r"t\.h5 could not be read as a transform: it is damaged"):
        Transform.load(tmp_path / "t.h5")


def _string_reference(content: bytes) -> int:
    """Where the reference to the class name lies: its length, the heap's address, its index."""
    heap, name = content.index(b"GCOL"), b"AffineTransform_double_3_3"
    return content.index(struct.pack("<IQ", len(name), heap))


@pytest.mark.parametrize("value", [0, 1, (1 << 64) - 1, 1 << 40])
def test_a_lost_class_name_is_refused(tmp_path: Path, value: int) -> None:
    content = bytearray(seeds.transform_bytes(".h5", "affine"))
    place = _string_reference(content)
    content[place + 4 : place + 12] = struct.pack("<Q", value)
    (tmp_path / "t.h5").write_bytes(content)
    with pytest.raises(InputError, match=r"t\.h5 could not be read as a transform: it is damaged"):
        Transform.load(tmp_path / "t.h5")


def test_no_byte_of_a_damaged_file_ends_the_process(tmp_path: Path) -> None:
    content = seeds.transform_bytes(".h5", "affine")
    random, path, outcomes = np.random.default_rng(0), tmp_path / "t.h5", set()
    for place in random.permutation(len(content))[:600].tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged if place % 3 else damaged[:place])
        try:
            outcomes.add(Transform.load(path) is not None)
        except InputError as error:
            assert "t.h5" in str(error)
            outcomes.add(False)
    assert outcomes == {True, False}


@pytest.mark.parametrize("place", [2, 40, 44, 100, 210])
def test_a_header_whose_checksum_is_wrong_is_refused(place: int) -> None:
    content = bytearray(seeds.transform_bytes(".h5", "affine"))
    hdf5.read_datasets(bytes(content))
    content[place] ^= 1
    with pytest.raises(hdf5.DamagedError):
        hdf5.read_datasets(bytes(content))


def test_the_checksum_is_lookup3() -> None:
    # The published values of hashlittle.
    assert hdf5.lookup3(b"") == 0xDEADBEEF
    assert hdf5.lookup3(b"Four score and seven years ago") == 0x17770551


@pytest.mark.parametrize(
    ("name", "parameters", "fixed"),
    [
        ("AffineTransform", 11, 3),
        ("Euler3DTransform", 2, 3),
        ("VersorRigid3DTransform", 6, 0),
        ("ScaleTransform", 0, 0),
        ("ScaleSkewVersor3DTransform", 7, 3),
        ("Similarity3DTransform", 3, 3),
        ("DisplacementFieldTransform", 3, 9),
        ("BSplineTransform", 0, 18),
    ],
)
def test_numbers_that_lack_for_a_class_are_refused(tmp_path: Path, name: str, parameters: int, fixed: int) -> None:
    path = tmp_path / "t.tfm"
    path.write_text(
        f"#Insight Transform File V1.0\n#Transform 0\nTransform: {name}_double_3_3\n"
        f"Parameters: {'0.1 ' * parameters}\nFixedParameters: {'1 ' * fixed}\n"
    )
    with pytest.raises(InputError, match=r"t\.tfm could not be read as a transform: its numbers do not fit its class"):
        Transform.load(path)


def test_two_transforms_that_are_no_chain_are_refused(tmp_path: Path) -> None:
    sitk.WriteTransform(_linear()[0], str(tmp_path / "t.tfm"))
    text = (tmp_path / "t.tfm").read_text(encoding="utf-8")
    (tmp_path / "t.tfm").write_text(text + text.replace("#Insight Transform File V1.0", ""))
    with pytest.raises(InputError, match=r"t\.tfm holds 2 transforms that are no chain"):
        Transform.load(tmp_path / "t.tfm")


def test_a_class_that_is_not_read_is_named(tmp_path: Path) -> None:
    text = seeds.transform_bytes(".tfm", "affine").decode()
    (tmp_path / "t.tfm").write_text(text.replace("AffineTransform", "ConstantVelocityFieldTransform"))
    with pytest.raises(InputError, match=r"t\.tfm holds a transform of the class 'ConstantVelocityFieldTransform"):
        Transform.load(tmp_path / "t.tfm")
    # What ANTs calls its affine transforms.
    (tmp_path / "t.tfm").write_text(text.replace("AffineTransform", "MatrixOffsetTransformBase"))
    (tmp_path / "u.tfm").write_text(text)
    expected = Transform.load(tmp_path / "u.tfm").map_points(POINTS)
    np.testing.assert_allclose(Transform.load(tmp_path / "t.tfm").map_points(POINTS), expected)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_hdf5_image_is_refused_under_any_name(tmp_path: Path, compressed: bool) -> None:
    image = seeds.image()
    sitk.WriteImage(image, str(tmp_path / "a.h5"), compressed)
    content = (tmp_path / "a.h5").read_bytes()
    read = hdf5.read_datasets(content)["ITKImage/0/VoxelData"]
    np.testing.assert_array_equal(read, sitk.GetArrayFromImage(image))
    assert read_volume(tmp_path / "a.h5").grid == Grid.from_sitk(image)
    place = content.index(b"GCOL") + 16
    for name, damaged in (("b.h5", content[:-200]), ("b.dat", content[:place] + bytes(9) + content[place + 9 :])):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{name} could not be read as an image: it is a damaged or unusual HDF5"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("fsl.mat", "1 0 0 5  \n0 1 0 6  \n0 0 1 -7e-1  \n0 0 0 1  \n", "holds the 16 numbers of a matrix"),
        ("m.txt", "1 0 0 5\n0 1 0 6\n0 0 1 7\n0 0 0 1\n", "holds the 16 numbers of a matrix"),
        (
            "t.xfm",
            "MNI Transform File\nTransform_Type = Linear;\nLinear_Transform =\n1 0 0 5\n0 1 0 6\n0 0 1 7;\n",
            "is a MINC transform",
        ),
    ],
)
def test_transforms_of_unsure_coordinates_are_refused_by_name(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"{name} {words}"):
        Transform.load(tmp_path / name)
