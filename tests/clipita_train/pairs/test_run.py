import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from clipita_train.cli import main
from clipita_train.engine.config import LossConfig, OptimizerConfig, StageConfig
from clipita_train.engine.state import split_model
from clipita_train.engine.step import NonFiniteLossError, take_ids
from clipita_train.pairs import run as pair_run
from clipita_train.pairs.model import pair_loss
from clipita_train.pairs.recipe import ImageBackbone, PairRecipe, TextBackbone
from flax import nnx
from support import environment, training_devices
from support.pair_toy import (
    ALL,
    CONFIG,
    HEADS,
    SHORT,
    device_recipe,
    toy_recipe,
    with_dropout,
    write_backbone,
    write_toy,
)

import clipita
from clipita.errors import CheckpointError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compile_once")]


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "toy")


@pytest.fixture(scope="module")
def whole_run(toy, tmp_path_factory):
    """Two stages, uninterrupted, with dropout in the second, in which towers learn."""
    out = tmp_path_factory.mktemp("run") / "out"
    return out, pair_run.train(with_dropout(toy_recipe(toy, save_every=1)), out)


AS_WHOLE_RUN = ("--set", "train.save_every=1", "--set", "text.dropout=0.2")


def lines_of(out: Path, split: str | None = None) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if split in (None, line["split"])]


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in lines_of(out)]


def run_command(toy: Path, out: Path, *more: str) -> list[str]:
    code = "import warnings; warnings.simplefilter('error'); from clipita_train.cli import main; main()"
    return [sys.executable, "-c", code, "run", str(toy / "recipe.py"), "--out", str(out), *more]


def test_overfits_64_pairs(toy, tmp_path):
    lines = [json.loads(line) for line in (toy / "pairs.jsonl").read_text().splitlines()]
    one = [{**line, "captions": line["captions"][:1]} for line in lines]
    (toy / "one.jsonl").write_text("".join(json.dumps(line) + "\n" for line in one))
    deeper = dataclasses.replace(
        CONFIG, image=dataclasses.replace(CONFIG.image, layers=2), text=dataclasses.replace(CONFIG.text, layers=2)
    )
    write_backbone(toy / "deeper", deeper)
    recipe = toy_recipe(
        toy,
        stages=(
            StageConfig("all", ALL, 5e-3, 64, steps=200, eval_every=200, optimizer=OptimizerConfig(clipping=0.05)),
        ),
        source={"path": "one.jsonl", "validation": "one.jsonl"},
        image=ImageBackbone(str(toy / "deeper")),
        text=TextBackbone(str(toy / "deeper")),
        embed_dim=64,
        loss=LossConfig(logit_scale=100.0),
    )
    pair_run.train(recipe, tmp_path)
    last = lines_of(tmp_path, "validation")[-1]
    assert last["rows"] == 64
    assert last["loss"] < 0.05
    assert last["recall"] == 1.0


@pytest.mark.parametrize("kind", ["softmax", "per_device"])
def test_towers_that_know_nothing_start_at_the_logarithm_of_the_batch(kind, toy, tmp_path):
    recipe = toy_recipe(toy, stages=SHORT, embed_dim=512, loss=LossConfig(kind, logit_scale=0.5))
    run = pair_run.PairRun(recipe, tmp_path)
    batch = take_ids(next(run.make_batches(recipe.train.stages[0], "train")))[0]
    loss, metrics = pair_loss(recipe, 24)(run.model, batch, jax.random.key(0))
    assert loss == pytest.approx(np.log(16), abs=0.02)
    assert metrics["logit_scale"] == 0.5


def test_two_stages_learn_and_the_first_moves_projections_alone(toy, whole_run):
    out, model = whole_run
    assert [(line["stage"], line["step"]) for line in lines_of(out, "train")] == [
        *((0, step) for step in range(1, 7)),
        *((1, step) for step in range(1, 10)),
    ]
    settings = json.loads((out / "config.json").read_text())
    assert settings["recipe"]["loss"]["logit_scale"] == 20.0
    assert len(settings["data_hash"]) == 64
    about = json.loads((out / "checkpoints" / "1-all" / "9" / "about" / "metadata").read_text())
    assert about["settings"] == settings
    assert about["software"]["jax"] == jax.__version__
    assert about["software"]["grain"]
    _, _, first = pair_run.load_run(toy_recipe(toy))
    assert not np.array_equal(model.image.patch.kernel[...], first.image.patch.kernel[...])


def test_killed_and_resumed_to_the_same_bits(toy, whole_run, compile_once, tmp_path):
    """Twice killed without warning, once in each stage, and gone on with from another process."""
    more = (*AS_WHOLE_RUN, "--resume")
    for stage, step in ((0, 3), (1, 4)):
        process = subprocess.Popen(run_command(toy, tmp_path, *more), env=environment(**compile_once))
        deadline = time.monotonic() + 300
        while not (tmp_path / "metrics.jsonl").exists() or last_of(tmp_path) < (stage, step):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.wait()
    subprocess.run(run_command(toy, tmp_path, *more), env=environment(**compile_once), check=True)
    assert (tmp_path / "metrics.jsonl").read_text() == (whole_run[0] / "metrics.jsonl").read_text()


def last_of(out: Path) -> tuple[int, int]:
    lines = [line for line in (out / "metrics.jsonl").read_text().splitlines(keepends=True) if line.endswith("\n")]
    return tuple(json.loads(lines[-1])[name] for name in ("stage", "step")) if lines else (0, 0)


def test_a_full_disk_costs_nothing_but_the_checkpoint_it_stopped(toy, whole_run, compile_once, tmp_path):
    """In the second stage no file may grow beyond what the metrics need, as if there were no room for a checkpoint."""
    more = [*AS_WHOLE_RUN, "--resume"]
    limited = f"""
import resource, clipita_train.engine.loop
validate = clipita_train.engine.loop._Run.validate
def last_room(run, index, step, state):
    if (index, step) == (1, 5):
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
    return validate(run, index, step, state)
clipita_train.engine.loop._Run.validate = last_room
from clipita_train.cli import main
main({run_command(toy, tmp_path, *more)[3:]!r})
"""
    left = subprocess.run(
        [sys.executable, "-c", limited], env=environment(**compile_once), capture_output=True, text=True
    )
    assert left.returncode == 1
    # Somewhere in it: what a thread in the background says of its own may stand on the same line.
    assert f"Error: a checkpoint in {tmp_path}/checkpoints/1-all could not be written" in left.stderr
    assert "File too large" in left.stderr
    assert "make room, and go on from there with --resume\n" in left.stderr
    subprocess.run(run_command(toy, tmp_path, *more), env=environment(**compile_once), check=True)
    assert (tmp_path / "metrics.jsonl").read_text() == (whole_run[0] / "metrics.jsonl").read_text()


def test_another_data_set_is_not_gone_on_with(toy, whole_run, tmp_path):
    changed = with_dropout(toy_recipe(toy, save_every=1, source={"validation": "pairs.jsonl"}))
    with pytest.raises(ValueError, match=r"other settings.*data_hash.*recipe\.data\.sources\.0\.validation"):
        pair_run.train(changed, whole_run[0], resume=True)


@pytest.mark.parametrize(("kind", "processes"), [("sigmoid", 1), ("softmax", 2)])
def test_eight_devices_equal_one(kind, processes, toy, tmp_path):
    """In one process, and in two that each read their own part of the pairs; with dropout, which is of the pair."""
    pair_run.train(device_recipe(toy, kind), tmp_path / "one")
    training_devices.run("pairs", str(toy), str(tmp_path / "eight"), kind, processes=processes)
    np.testing.assert_allclose(losses(tmp_path / "eight"), losses(tmp_path / "one"), rtol=1e-5)


def test_locked_towers_read_cached_features(toy, tmp_path):
    heads = (StageConfig("heads", HEADS, learning_rate=3e-3, batch_size=16, steps=3, eval_every=3),)
    for cached in (True, False):
        recipe = toy_recipe(toy, stages=heads, cache_features=cached)
        pair_run.train(recipe, tmp_path / str(cached))
    assert len(list((tmp_path / "True" / "features").iterdir())) == 2
    assert not (tmp_path / "False" / "features").exists()
    np.testing.assert_allclose(losses(tmp_path / "True"), losses(tmp_path / "False"), rtol=2e-3)  # kept in float16
    run = pair_run.PairRun(toy_recipe(toy), tmp_path / "True")
    first, second = run.recipe.training.stages
    assert set(next(run.make_batches(first, "train"))) >= {"image_features", "text_features"}
    assert set(next(run.make_batches(second, "train"))) >= {"pixels", "input_ids"}
    augmented = pair_run.PairRun(toy_recipe(toy, augmentation="light"), tmp_path / "True")
    batch = next(augmented.make_batches(first, "train"))
    assert batch["pixels"].shape == (16, 28, 28, 3)
    assert "text_features" in batch
    assert "may_flip" not in batch
    assert next(iter(augmented.make_batches(first, "validation")))["pixels"].shape == (16, 24, 24, 3)


def test_chunks_and_augmentation_through_the_towers(toy, tmp_path):
    recipe = toy_recipe(toy, stages=SHORT, augmentation="as_coded")
    run = pair_run.PairRun(recipe, tmp_path)
    batch = take_ids(next(run.make_batches(recipe.train.stages[0], "train")))[0]
    assert set(batch["may_flip"]) == {True, False}
    one = pair_loss(recipe, 24)(run.model, batch, jax.random.key(0))[0]
    four = pair_loss(dataclasses.replace(recipe, chunks=4), 24)(run.model, batch, jax.random.key(0))[0]
    np.testing.assert_allclose(one, four, rtol=1e-6)
    seen_later = {**batch, "view": batch["view"] + 1}
    assert abs(pair_loss(recipe, 24)(run.model, seen_later, jax.random.key(0))[0] - one) > 1e-3


def first_batch(recipe: PairRecipe, out: Path) -> dict:
    run = pair_run.PairRun(recipe, out)
    return take_ids(next(run.make_batches(recipe.training.stages[0], "train")))[0]


class Gradients:
    """(loss, gradients by all parameters) of the model of a recipe, and the program that computes them."""

    def __init__(self, recipe: PairRecipe):
        graphdef, self.params, rest = split_model(pair_run.load_run(recipe)[2])
        loss_fn = pair_loss(recipe, 24)
        self.compiled = jax.jit(
            jax.value_and_grad(lambda params, *of: loss_fn(nnx.merge(graphdef, params, rest), *of)[0])
        )

    def __call__(self, batch: dict, key: jax.Array | None = None):
        return self.compiled(self.params, batch, key)

    def program(self, batch: dict, key: jax.Array | None = None) -> str:
        return str(jax.make_jaxpr(self.compiled)(self.params, batch, key))


def assert_near(one, two, rtol=1e-4, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), one, two)


def test_dropout_is_of_the_pair_and_the_step(toy, tmp_path):
    """Not of chunks, which are run again for gradients with the same keys, rematerialisation or the order of rows."""
    recipe, key = with_dropout(toy_recipe(toy, stages=SHORT)), jax.random.key(1)
    batch = first_batch(recipe, tmp_path)
    plain = Gradients(recipe)
    expected = plain(batch, key)
    order = np.random.default_rng(0).permutation(16)
    assert_near(plain(jax.tree.map(lambda leaf: leaf[order], batch), key), expected)
    for others in (plain(batch, jax.random.key(2)), plain({**batch, "view": batch["view"] + 1}, key)):
        assert abs(others[0] - expected[0]) > 1e-3
    for changes in ({"chunks": 4}, {"chunks": 2, "rematerialise": True}):
        assert_near(Gradients(dataclasses.replace(recipe, **changes))(batch, key), expected)
    fast = Gradients(dataclasses.replace(recipe, dtype="bfloat16", chunks=2))(batch, key)
    assert float(fast[0]) == pytest.approx(float(expected[0]), rel=0.02)  # of the same masks

    without = Gradients(toy_recipe(toy, stages=SHORT))
    jax.tree.map(np.testing.assert_array_equal, plain(batch), without(batch))
    assert "random" in plain.program(batch, key)
    assert "random" not in plain.program(batch) + without.program(batch, key)


def test_a_locked_tower_is_dropped_of_unless_its_features_are_cached(toy, tmp_path):
    heads = (StageConfig("heads", HEADS, learning_rate=3e-3, batch_size=16, steps=3, eval_every=3),)
    recipe, key = with_dropout(toy_recipe(toy, stages=heads)), jax.random.key(0)
    cached = first_batch(recipe, tmp_path)
    assert "text_features" in cached
    gradients = Gradients(recipe)
    assert "random" not in gradients.program(cached, key)
    batch = first_batch(dataclasses.replace(recipe, cache_features=False), tmp_path)
    assert "input_ids" in batch
    assert "random" in gradients.program(batch, key)


def test_bfloat16_and_rematerialisation_change_rounding_alone(toy, tmp_path):
    recipe = toy_recipe(toy, stages=SHORT)
    batch = first_batch(recipe, tmp_path)
    plain, again, fast = (
        Gradients(dataclasses.replace(recipe, **changes))
        for changes in ({}, {"rematerialise": True}, {"dtype": "bfloat16"})
    )
    assert again.program(batch).count("remat") > plain.program(batch).count("remat")
    expected, rounded = plain(batch), fast(batch)
    assert_near(expected, again(batch))
    assert "bf16" in fast.program(batch)
    assert 1e-6 < abs(rounded[0] - expected[0]) < 0.05 * expected[0]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(rounded)} == {"float32"}


def test_a_loss_that_is_not_finite_names_its_photographs(toy, tmp_path, monkeypatch):
    recipe = toy_recipe(toy, stages=SHORT, loss=LossConfig(logit_scale=1e38))
    with pytest.raises(NonFiniteLossError, match=r"ids of its batch: \['toy: pairs\.jsonl:\d+', 'toy:"):
        pair_run.train(recipe, tmp_path)


def test_a_run_becomes_a_bundle_and_a_model_of_transformers(toy, whole_run, tmp_path):
    out, model = whole_run
    arguments = ["export", str(toy / "recipe.py"), "--run", str(out), "--out", str(tmp_path / "bundle")]
    more = ["--revision", "1", "--transformers", str(tmp_path / "hf")]
    wrong = CliRunner().invoke(main, [*arguments, *more, *AS_WHOLE_RUN[2:]])
    assert wrong.exit_code == 1
    assert "has other settings than this run: save_every" in wrong.output
    done = CliRunner().invoke(main, [*arguments, *more, *AS_WHOLE_RUN], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    served = clipita.load(tmp_path / "bundle")
    photograph = toy / "photographs" / "3.png"
    assert served.zero_shot(photograph, ["un cane", "un gatto"])[0].score > 0.5
    again = clipita.load(tmp_path / "hf", cache_dir=tmp_path)
    texts = ["un cane", "una gatta, a sinistra"]
    np.testing.assert_allclose(again.encode_text(texts), served.encode_text(texts), atol=1e-6)
    assert again.logit_scale == pytest.approx(20.0) == served.logit_scale
    model.eval()
    (batch,) = served._tokenizer.encode(texts[:1])
    expected = model.project_text(model.text_features(batch.input_ids, batch.attention_mask))
    np.testing.assert_allclose(served.encode_text(texts[0]), expected[0], atol=1e-5)


def test_recipes_say_what_is_wrong(toy, tmp_path):
    def fails(*arguments: str) -> str:
        result = CliRunner().invoke(main, list(arguments))
        assert result.exit_code != 0
        assert isinstance(result.exception, SystemExit), result.exception
        return result.output.splitlines()[-1]

    run = ("run", str(toy / "recipe.py"), "--out", str(tmp_path / "out"))
    assert "did you mean 'augmentation'" in fails(*run, "--set", "augmentatio=light")
    assert "augmentation must be one of none, as_coded" in fails(*run, "--set", "augmentation=flip")
    assert "only must be names of stages (heads, all)" in fails(*run, "--set", "only=end")
    assert "dropout must be a share in [0, 1), not 1.0" in fails(*run, "--set", "text.dropout=1.0")
    assert "there is no model 'nowhere'" in fails(*run, "--set", "image.source=nowhere")
    assert "see data.root" in fails(*run, "--set", "data.root=/nowhere")
    assert not (tmp_path / "out" / "config.json").exists()
    assert fails("sources", str(toy / "recipe.py")).startswith("Error: sources does not take the recipe ")
    (tmp_path / "empty.py").write_text("")
    assert "defines no RECIPE" in fails("run", str(tmp_path / "empty.py"), "--out", str(tmp_path))
    assert "no run in" in fails(
        "export", str(toy / "recipe.py"), "--run", str(tmp_path), "--out", "x", "--revision", "0"
    )


def test_what_is_asked_of_a_backbone_must_fit(toy):
    recipe = toy_recipe(toy)
    for changes, message in (
        ({"image": dataclasses.replace(recipe.image, size=32)}, "reads images of 24 x 24 pixels, of which it has 10"),
        ({"text": dataclasses.replace(recipe.text, max_tokens=99)}, "has positions for 24 tokens, but .* asks for 99"),
        ({"text": dataclasses.replace(recipe.text, pooling="mean")}, "pools by 'pooler': leave text.pooling out"),
    ):
        with pytest.raises(CheckpointError, match=message):
            pair_run.load_run(dataclasses.replace(recipe, **changes))
