import dataclasses

import jax
import numpy as np
import pytest
from clipita_train.engine.checkpoint import Checkpoints, claim_folder, last_checkpoint, restore_start, stage_folder
from clipita_train.engine.config import StageConfig
from clipita_train.engine.optimizer import build_optimizer
from clipita_train.engine.stages import Progress
from clipita_train.engine.state import create_state, split_model
from flax import nnx
from support.training_toy import HEADS, LOCKED, Towers, make_config

pytestmark = pytest.mark.usefixtures("strict_types")


class WithStream(Towers):
    """A model that keeps a random stream of its own, whose key has to be saved too."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.noise = nnx.Dropout(0.5, rngs=rngs)


def make_state(seed=0, step=0):
    _, params, rest = split_model(WithStream(nnx.Rngs(seed)))
    optimizer = build_optimizer(StageConfig("prova", (LOCKED, HEADS), 0.01, 8), params, total_steps=10)
    state = create_state(params, rest, optimizer, stage=0, seed=seed, sharding=jax.devices()[0])
    return dataclasses.replace(state, step=state.step + step)


def assert_same(one, other):
    def plain(leaf):
        return jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf

    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(plain(a), plain(b)), one, other)


@pytest.mark.slow
def test_all_of_it_comes_back(tmp_path):
    state, progress = make_state(1, step=3), Progress(best_step=2, best_loss=0.5, waiting=1)
    with Checkpoints(tmp_path, 0, "prova") as checkpoints:
        checkpoints.save(state, {"position": [4, "shard-3"]}, progress, loss=0.7)
    with Checkpoints(tmp_path, 0, "prova") as checkpoints:
        assert checkpoints.latest_step() == 3
        restored, position, restored_progress = checkpoints.restore(3, make_state(2))
        params, rest = checkpoints.restore_model(3, state.params, state.rest)
    assert_same(restored, state)
    assert_same((params, rest), (state.params, state.rest))
    assert position == {"position": [4, "shard-3"]}
    assert restored_progress == progress


def test_the_latest_and_the_first_best_are_kept(tmp_path):
    losses = {1: 3.0, 2: 1.0, 3: None, 4: 1.0, 5: 2.0, 6: None, 7: None}
    with Checkpoints(tmp_path, 0, "prova", keep=2) as checkpoints:
        state = make_state()
        for step, loss in losses.items():
            checkpoints.save(dataclasses.replace(state, step=state.step + step), None, Progress(), loss=loss)
    assert sorted(int(path.name) for path in stage_folder(tmp_path, 0, "prova").iterdir()) == [2, 6, 7]


def test_the_best_checkpoint_of_a_run_outlives_its_resumption(tmp_path):
    for step, loss in ((1, 0.25), (2, 0.5), (3, None)):
        with Checkpoints(tmp_path, 0, "prova") as checkpoints:
            checkpoints.save(make_state(step=step), None, Progress(), loss=loss)
    assert sorted(int(path.name) for path in stage_folder(tmp_path, 0, "prova").iterdir()) == [1, 3]


def test_an_unfinished_checkpoint_does_not_count(tmp_path):
    with Checkpoints(tmp_path, 0, "prova") as checkpoints:
        checkpoints.save(make_state(step=1), None, Progress(), loss=1.0)
    (stage_folder(tmp_path, 0, "prova") / "2.orbax-checkpoint-tmp").mkdir()
    with Checkpoints(tmp_path, 0, "prova") as checkpoints:
        assert checkpoints.latest_step() == 1


def test_a_folder_belongs_to_one_run(tmp_path):
    config = make_config()

    def claim(config, *, resume):
        claim_folder(tmp_path / "run", dataclasses.asdict(config), resume=resume)

    claim(config, resume=True)
    claim(config, resume=True)
    with pytest.raises(FileExistsError, match="holds a run: resume it"):
        claim(config, resume=False)
    stages = (dataclasses.replace(config.stages[0], patience=3), config.stages[1])
    with pytest.raises(ValueError, match=r"other settings than this run: seed, stages\.0\.patience\. "):
        claim(dataclasses.replace(config, seed=1, stages=stages), resume=True)


def test_a_stage_starts_from_the_best_or_the_last_of_the_one_before(tmp_path):
    config = make_config()
    assert last_checkpoint(tmp_path, config) == (0, -1)
    states = {step: make_state(step, step=step) for step in (1, 2)}
    with Checkpoints(tmp_path, 0, "projections") as checkpoints:
        for step, state in states.items():
            checkpoints.save(state, None, Progress(best_step=1, best_loss=0.1), loss=0.1 * step)
    assert last_checkpoint(tmp_path, config) == (0, 2)
    like = make_state()
    for choice, step in (("best", 1), ("last", 2)):
        stages = (config.stages[0], dataclasses.replace(config.stages[1], start_from=choice))
        changed = dataclasses.replace(config, stages=stages)
        params, _ = restore_start(tmp_path, changed, 1, like.params, like.rest)
        assert_same(params, states[step].params)
    with pytest.raises(FileNotFoundError, match="no checkpoint of stage 'all'"):
        restore_start(tmp_path, config, 2, like.params, like.rest)
