"""Where a training computes: what there is not is refused before any work, and images load in their order."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from samconvex.cli.main import main
from samconvex.errors import Cancelled, InputError
from samconvex.training.data.cases import load_each
from samconvex.training.loop import half_precise


@pytest.mark.parametrize("network", ["featcnn", "suits"])
def test_networks_that_train_on_the_cpu_say_so(network, tmp_path, capsys):
    weights = tmp_path / "weights.pt"
    status = main(["train", network, "--data", "phantom", "-o", str(weights), "--device", "cuda", "--steps", "1"])
    said = capsys.readouterr().err
    assert status == 2 and f"train {network} computes on the CPU; leave out --device." in said
    assert not weights.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("network", ["sam", "masr", "semantic", "lapirn", "same", "sides"])
def test_a_device_that_is_not_there_is_refused_before_the_data_is_read(network, tmp_path, capsys):
    # The folder does not exist either: the device is looked for first.
    words = ["train", network, "--data", str(tmp_path / "nowhere"), "-o", str(tmp_path / "weights.pt")]
    assert main([*words, "--device", "cuda"]) == 4
    assert "Device 'cuda' was not found on this computer" in capsys.readouterr().err
    assert main([*words, "--device", "tpu"]) == 2
    assert "use auto, cpu, cuda or cuda:N" in capsys.readouterr().err


def test_convolutions_keep_all_digits_where_a_recipe_wants_them():
    with half_precise(torch.device("cpu"), wanted=False):
        assert not torch.is_autocast_enabled("cpu")


def test_images_come_in_their_order_and_unusable_ones_are_named(caplog):
    found = [(Path(f"{number}.nii"), None) for number in range(12)]

    def build(path: Path, _labels: Path | None) -> int:
        if path.stem == "7":
            raise InputError(f"{path} is no CT.")
        return int(path.stem)

    told: list[float] = []
    assert load_each(found, build, lambda share, name: told.append(share)) == [n for n in range(12) if n != 7]
    assert "left out: 7.nii is no CT." in caplog.text
    assert told == sorted(told) and told[-1] == 1.0


def test_loading_can_be_cancelled():
    begun: list[Path] = []

    def stop(_share: float, _name: str) -> None:
        raise Cancelled("stop")

    def build(path: Path, _labels: Path | None) -> None:
        time.sleep(0.005)
        begun.append(path)

    with pytest.raises(Cancelled):
        load_each([(Path(f"{number}.nii"), None) for number in range(500)], build, stop)
    # Those that nobody waits for any more are not begun.
    assert len(begun) < 500
