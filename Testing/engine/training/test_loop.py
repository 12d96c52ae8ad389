"""The one loop of all recipes: averages, resumes, leaves out what is not finite, and never keeps broken weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from samconvex.errors import Cancelled, InputError
from samconvex.training import loop as loop_module
from samconvex.training.loop import MOST_IN_A_ROW, Loop, Plan, save_checkpoint, writer
from samconvex.weights.checkpoints import read_checkpoint
from torch import nn


@dataclass
class Settings:
    seed: int = 0


class Line(nn.Module):
    """The smallest network with a state that training changes by itself."""

    config: dict = {}

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.norm(x))


@pytest.fixture
def network() -> Line:
    torch.manual_seed(0)
    return Line()


def plan_of(network: nn.Module, **changes) -> Plan:
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    plan = Plan(Settings(), optimizer, lambda step, share: 0.1, writer("line", 1), lambda n: {"size": 1.0}, steps=4)
    return replace(plan, **changes)


def drawn_from(network: nn.Module, broken: Callable[[int], bool] = lambda call: False):
    calls = iter(range(10_000))

    def draw(generator: torch.Generator):
        x = torch.rand(8, 2, generator=generator)
        if broken(next(calls)):
            x = x * torch.nan
        return ((network(x) - 1) ** 2).mean(), {}

    return draw


def quiet(stage: str, fraction: float, message: str) -> None:
    pass


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_averaged_weights_are_the_exponential_mean_from_the_start_on(tmp_path, network):
    seen = [{k: v.clone() for k, v in network.state_dict().items()}]
    loop = Loop(network, tmp_path / "a.pt", plan_of(network, average=0.3))
    draw = drawn_from(network)
    expected = seen[0]
    for step in range(1, 5):
        loop._step(draw, torch.Generator().manual_seed(step))
        decay = min(0.3, (1 + step) / (10 + step))
        for key, value in network.state_dict().items():
            floats = value.is_floating_point()
            expected[key] = expected[key].lerp(value, 1 - decay) if floats else value.clone()
    assert loop.average is not None
    for key, value in loop.average.module.state_dict().items():
        assert torch.equal(value, expected[key]), key
    assert not torch.equal(network.layer.weight, loop.average.module.layer.weight)


def test_the_averaged_weights_are_validated_between_and_written(tmp_path, network):
    measured = []
    plan = plan_of(network, average=0.5, validate=lambda n: measured.append(n) or {"x": 1.0}, validate_every_s=0.0)
    loop = Loop(network, tmp_path / "a.pt", plan)
    loop.run(drawn_from(network), quiet)
    assert len(measured) == 5 and all(n is loop.result is not network for n in measured)
    written = read_checkpoint(tmp_path / "a.pt")["state_dict"]["layer.weight"]
    assert torch.equal(written, loop.result.layer.weight.detach().half())
    assert [e["event"] for e in lines(tmp_path / "a.log.jsonl")] == ["validation"] * 5


def test_a_stopped_run_with_averages_goes_on_as_if_it_had_not_stopped(tmp_path):
    x = torch.rand(8, 2, generator=torch.Generator().manual_seed(5))

    def trained(name: str, until: list[int]) -> dict:
        for k, steps in enumerate(until):
            torch.manual_seed(k)
            network = Line()
            loop = Loop(network, tmp_path / name, plan_of(network, average=0.5, steps=steps), resume=k > 0)
            # Draws start anew where a run goes on: here they are all the same one.
            loop.run(lambda _, network=network: (((network(x) - 1) ** 2).mean(), {}), quiet)
        return read_checkpoint(tmp_path / name)["state_dict"]

    whole, parts = trained("whole.pt", [6]), trained("parts.pt", [3, 6])
    for key, value in whole.items():
        assert torch.equal(value, parts[key]), key


def test_resume_files_of_before_are_read(tmp_path, network):
    """The anatomical embedding's had no figures of before."""
    loop = Loop(network, tmp_path / "a.pt", plan_of(network, average=0.5))
    loop.run(drawn_from(network), quiet)
    path = tmp_path / "a.resume.pt"
    state = torch.load(path, weights_only=True)
    del state["before"]
    torch.save(state, path)
    assert Loop(network, tmp_path / "a.pt", plan_of(network, average=0.5), resume=True).number == 4


def test_the_rate_follows_steps_and_share(tmp_path, network):
    asked = []
    plan = plan_of(
        network, rate=lambda step, share: asked.append((step, share)) or 0.5**step, log_every=1, log_rate=True
    )
    Loop(network, tmp_path / "a.pt", plan).run(drawn_from(network), quiet)
    assert asked == [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75)]
    assert [e["lr"] for e in lines(tmp_path / "a.log.jsonl") if "lr" in e] == [1.0, 0.5, 0.25, 0.125]


def test_the_gradient_is_clipped_and_told(tmp_path, network):
    gradients = []

    def draw(generator: torch.Generator):
        return network(torch.rand(8, 2, generator=generator)).sum() * 1e3, {}

    class Optimizer(torch.optim.SGD):
        def step(self, closure=None):
            gradients.append(nn.utils.get_total_norm([p.grad for p in network.parameters()]))

    plan = plan_of(network, optimizer=Optimizer(network.parameters(), 0.1), clip=2.0, log_every=4)
    Loop(network, tmp_path / "a.pt", plan).run(draw, quiet)
    assert all(float(norm) == pytest.approx(2.0, rel=1e-3) for norm in gradients)
    assert any(e.get("gradient", 0) > 100 for e in lines(tmp_path / "a.log.jsonl"))


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_left_out(tmp_path, network, kind):
    good = drawn_from(network)
    calls = iter(range(100))

    def draw(generator: torch.Generator):
        if next(calls) % 2 == 0:
            return good(generator)
        if kind == "loss":
            return network(torch.full((8, 2), torch.nan)).sum(), {}
        # The root of zero is finite, its slope is not.
        return network(torch.rand(8, 2, generator=generator)).sum().mul(0).sqrt(), {}

    result = Loop(network, tmp_path / "a.pt", plan_of(network, steps=40, log_every=4)).run(draw, quiet)
    assert result["step"] == 40
    written = read_checkpoint(tmp_path / "a.pt")["state_dict"]
    assert all(bool(torch.isfinite(value).all()) for value in written.values())
    assert all(e["loss"] < 100 for e in lines(tmp_path / "a.log.jsonl") if "loss" in e)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_step_left_out_leaves_weights_statistics_and_averages_as_they_were(tmp_path, network, kind):
    loop = Loop(network, tmp_path / "a.pt", plan_of(network, average=0.5))
    generator = torch.Generator().manual_seed(0)
    loop._step(drawn_from(network), generator)
    kept = [{k: v.clone() for k, v in n.state_dict().items()} for n in (network, loop.result)]

    def draw(generator: torch.Generator):
        x = torch.rand(8, 2, generator=generator)
        # The root of zero is finite, its slope is not.
        return (network(x * torch.nan).sum() if kind == "loss" else network(x + 3).sum().mul(0).sqrt()), {}

    loop._step(draw, generator)
    for before, now in zip(kept, (network, loop.result), strict=True):
        assert all(torch.equal(value, before[key]) for key, value in now.state_dict().items())
    loop._step(drawn_from(network), generator)
    assert loop.number == 3 and not torch.equal(network.layer.weight, kept[0]["layer.weight"])


def test_a_good_step_between_lets_a_run_go_on(tmp_path, network):
    plan = plan_of(network, steps=4 * MOST_IN_A_ROW)
    draw = drawn_from(network, lambda call: call % MOST_IN_A_ROW != 0)
    assert Loop(network, tmp_path / "a.pt", plan).run(draw, quiet)["step"] == 4 * MOST_IN_A_ROW


def test_a_resume_file_that_is_not_finite_is_refused(tmp_path, network):
    Loop(network, tmp_path / "a.pt", plan_of(network)).run(drawn_from(network), quiet)
    path = tmp_path / "a.resume.pt"
    state = torch.load(path, weights_only=True)
    state["network"]["norm.running_var"][0] = torch.inf
    torch.save(state, path)
    with pytest.raises(InputError, match=r"a\.resume\.pt.*not finite \(network\.norm\.running_var\).*Without --resume"):
        Loop(network, tmp_path / "a.pt", plan_of(network), resume=True)


def test_a_run_that_is_not_finite_any_more_stops_and_keeps_its_last_good_weights(tmp_path, network):
    output = tmp_path / "a.pt"
    loop = Loop(network, output, plan_of(network, steps=1000))
    with pytest.raises(
        InputError, match=f"not finite {MOST_IN_A_ROW} times in a row.*weights of step 3.*learning_rate"
    ):
        loop.run(drawn_from(network, lambda call: call >= 3), quiet)
    kept = read_checkpoint(output)
    assert torch.equal(kept["state_dict"]["layer.weight"], network.layer.weight.detach().half())
    assert loop.number < 20


def test_a_run_that_never_was_finite_leaves_the_file_as_it_was(tmp_path, network):
    output = tmp_path / "a.pt"
    output.write_bytes(b"precious")
    with pytest.raises(InputError, match="as it was"):
        Loop(network, output, plan_of(network, steps=1000)).run(drawn_from(network, lambda call: True), quiet)
    assert output.read_bytes() == b"precious" and not (tmp_path / "a.resume.pt").exists()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_never_written(tmp_path, network, value):
    path = tmp_path / "a.pt"
    path.write_bytes(b"precious")
    with torch.no_grad():
        network.layer.weight[0, 1] = value
    with pytest.raises(InputError, match=r"a\.pt was not written.*layer\.weight"):
        save_checkpoint(path, network, "line", 1, {})
    assert path.read_bytes() == b"precious" and [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_what_is_beyond_half_precision_is_written_whole(tmp_path, network):
    # Batch norm's variances were, in the first minutes of a training of 5 million weights.
    network.norm.running_var[1] = 7e4
    save_checkpoint(tmp_path / "a.pt", network, "line", 1, {})
    kept = read_checkpoint(tmp_path / "a.pt")["state_dict"]
    assert float(kept["norm.running_var"][1]) == 7e4 and kept["layer.weight"].dtype == torch.float16
    again = Line()
    again.load_state_dict(kept)
    assert float(again.norm.running_var[1]) == 7e4


def test_a_cancelled_run_says_how_to_go_on(tmp_path, network):
    def stop(stage: str, fraction: float, message: str) -> None:
        if fraction >= 0.5:
            raise Cancelled()

    with pytest.raises(Cancelled, match="after step 2.*--resume"):
        Loop(network, tmp_path / "a.pt", plan_of(network)).run(drawn_from(network), stop)
    assert read_checkpoint(tmp_path / "a.pt")["meta"]["step"] == 2


def test_a_paused_process_does_not_use_up_its_budget(tmp_path, network, monkeypatch):
    now = iter(range(0, 10**6, 1000))
    monkeypatch.setattr(loop_module.time, "monotonic", lambda: next(now))
    result = Loop(network, tmp_path / "a.pt", plan_of(network)).run(drawn_from(network), quiet)
    assert result["seconds"] == 4 * loop_module.LONGEST_STEP_S
