import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from clipita_train.engine.config import StageConfig
from clipita_train.engine.log import MetricsFile
from clipita_train.engine.loop import fit, load_best
from clipita_train.engine.step import NonFiniteLossError
from flax import nnx
from support import environment
from support.training_toy import HEADS, LOCKED, Pairs, Towers, loss_fn, make_batches, make_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("strict_types", "compile_once")]

PROGRAM = [sys.executable, "-m", "support.training_toy"]
CONFIG = make_config(save_every=3)
SHORT = make_config(stages=(StageConfig("breve", (LOCKED, HEADS), 0.01, 16, steps=6, eval_every=2),))


def run(out_dir, config=CONFIG, make_batches=make_batches, **options):
    return fit(Towers(nnx.Rngs(0)), config, loss_fn, make_batches, out_dir=out_dir, show_progress=False, **options)


def read_metrics(out_dir):
    return [json.loads(line) for line in (out_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("whole")
    return out_dir, run(out_dir)


def test_two_stages_learn_and_are_written_down(whole_run):
    out_dir, model = whole_run
    lines = read_metrics(out_dir)
    assert [(line["stage"], line["step"]) for line in lines if line["split"] == "train"] == [
        *((0, step) for step in range(1, 21)),
        *((1, step) for step in range(1, 31)),
    ]
    validation = [line for line in lines if line["split"] == "validation"]
    assert [(line["stage"], line["step"]) for line in validation] == [
        *((0, step) for step in (0, 10, 20)),
        *((1, step) for step in (0, 10, 20, 30)),
    ]
    assert all(line["rows"] == 50 for line in validation)
    assert validation[-1]["loss"] < validation[2]["loss"] < validation[0]["loss"]
    assert validation[2]["loss"] == validation[3]["loss"]  # the second stage starts from the best of the first
    assert json.loads((out_dir / "config.json").read_text())["save_every"] == 3
    again = load_best(Towers(nnx.Rngs(1)), CONFIG, out_dir)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(again, nnx.Param), nnx.state(model, nnx.Param))


def test_killed_and_resumed_as_if_nothing_had_happened(whole_run, tmp_path):
    process = subprocess.Popen([*PROGRAM, str(tmp_path), "--slow", "0.1"], env=environment())
    deadline = time.monotonic() + 120
    while not (tmp_path / "metrics.jsonl").exists() or read_last(tmp_path) < (1, 14):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": 1, "step"')  # a line cut short
    positions = []

    class Watched(Pairs):
        def set_state(self, state):
            positions.append(state["position"])
            super().set_state(state)

    def watched(stage, split):
        return Watched(160, 16, train=True) if split == "train" else make_batches(stage, split)

    run(tmp_path, make_batches=watched, resume=True)
    assert len(positions) == 1
    assert 10 <= positions[0] < 30
    assert (tmp_path / "metrics.jsonl").read_text() == (whole_run[0] / "metrics.jsonl").read_text()


def read_last(out_dir):
    lines = [line for line in (out_dir / "metrics.jsonl").read_text().splitlines(keepends=True) if line.endswith("\n")]
    return tuple(json.loads(lines[-1])[name] for name in ("stage", "step")) if lines else (0, 0)


def test_sigterm_saves_and_leaves_with_its_status(tmp_path):
    class Terminated(Pairs):
        def __next__(self):
            if self.position == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__next__()

    def terminated(stage, split):
        return Terminated(160, 16, train=True) if split == "train" else make_batches(stage, split)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        run(tmp_path / "left", SHORT, terminated)
    assert left.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert read_last(tmp_path / "left") == (0, 4)
    run(tmp_path / "left", SHORT, resume=True)
    run(tmp_path / "whole", SHORT)
    assert read_metrics(tmp_path / "left") == read_metrics(tmp_path / "whole")
    assert run(tmp_path / "left", SHORT, resume=True)  # a finished run has nothing to do
    assert read_metrics(tmp_path / "left") == read_metrics(tmp_path / "whole")


def test_eight_devices_see_the_global_batch(whole_run, tmp_path):
    """The same losses as on one device: each row is compared with those on the other devices too."""
    environ = environment(XLA_FLAGS="--xla_force_host_platform_device_count=8", JAX_PLATFORMS="cpu")
    subprocess.run([*PROGRAM, str(tmp_path), "--stages", "1"], env=environ, check=True)
    one = [line["loss"] for line in read_metrics(whole_run[0]) if line["stage"] == 0]
    eight = [line["loss"] for line in read_metrics(tmp_path)]
    np.testing.assert_allclose(eight, one, rtol=1e-5)


def test_a_loss_that_is_not_finite_names_its_examples_and_is_not_saved(tmp_path):
    class Broken(Pairs):
        def __next__(self):
            batch = super().__next__()
            if self.position == 4:
                batch["pixels"][2] = np.nan
                batch["ids"] = np.array([f"foto/{number}.jpg" for number in batch["ids"]])
            return batch

    def broken(stage, split):
        return Broken(160, 16, train=True) if split == "train" else make_batches(stage, split)

    with pytest.raises(NonFiniteLossError, match=r"'breve', training step 4: not finite \(.*loss=nan.*foto/\d+\.jpg"):
        run(tmp_path, SHORT, broken)
    assert read_last(tmp_path) == (0, 3)
    run(tmp_path, SHORT, resume=True)  # from step 2, with sound data
    assert read_last(tmp_path) == (0, 6)


def test_the_stage_stops_when_validation_no_longer_improves(tmp_path):
    scores = iter([3.0, 2.0, 2.5, 2.0, 1.0])
    stage = dataclasses.replace(SHORT.stages[0], steps=20, patience=2)

    def given(eval_step, state, batches, mesh):
        return 1, {"loss": next(scores)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clipita_train.engine.loop.validation_means", given)
        model = run(tmp_path, make_config(stages=(stage,)), evaluate=lambda model: {"accuracy": 0.5})
    validation = [(line["step"], line["loss"]) for line in read_metrics(tmp_path) if line["split"] == "validation"]
    assert validation == [(0, 3.0), (2, 2.0), (4, 2.5), (6, 2.0)]
    assert sum(line["split"] == "evaluation" for line in read_metrics(tmp_path)) == 4
    assert (tmp_path / "checkpoints" / "0-breve" / "2").exists()
    assert isinstance(model, Towers)


def test_training_batches_that_end_are_an_error(tmp_path):
    def ending(stage, split):
        return Pairs(32, 16, train=False)

    with pytest.raises(ValueError, match="the training batches of stage 'breve' ended before it did"):
        run(tmp_path, SHORT, ending)


def test_the_metrics_file_forgets_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"stage": {a}, "step": {b}}}\n' for a, b in [(0, 1), (0, 2), (1, 0), (1, 1)]) + '{"sta')
    with MetricsFile(path, keep_until=(1, 0)) as metrics:
        metrics.write(stage=1, step=1, split="train", loss=0.1)
    assert [(line["stage"], line["step"]) for line in read_metrics(tmp_path)] == [(0, 1), (0, 2), (1, 0), (1, 1)]
    with MetricsFile(path, keep_until=(0, -1)):
        pass
    assert path.read_text() == ""
