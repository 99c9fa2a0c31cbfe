import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clipita_train.engine.config import LossConfig, replace_from_strings
from clipita_train.losses.configured import PairLoss
from clipita_train.losses.distributed import per_device_softmax, sigmoid_ring
from flax import nnx
from support import training_devices
from support.training_devices import slow_sigmoid_pairs, slow_softmax_pairs, unit_rows

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("strict_types")]

MESH = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
IMAGE, TEXT = (unit_rows(np.random.default_rng(seed), 12) for seed in range(2))


def test_losses_on_eight_devices_equal_their_definitions():
    training_devices.run("losses")


@pytest.mark.parametrize("mesh", [None, MESH])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_every_kind_equals_its_definition(mesh, learned, margin):
    more = {"margin": margin, "learned": learned}
    softmax = PairLoss(LossConfig("softmax", **more), mesh)(IMAGE, TEXT)
    np.testing.assert_allclose(softmax, slow_softmax_pairs(IMAGE, TEXT, 20, margin), rtol=1e-5)
    sigmoid = PairLoss(LossConfig("sigmoid", logit_scale=10.0, logit_bias=-10.0, **more), mesh)(IMAGE, TEXT)
    np.testing.assert_allclose(sigmoid, slow_sigmoid_pairs(IMAGE, TEXT, 10, -10, margin), rtol=1e-5)
    if mesh is not None:  # one device sees all pairs
        np.testing.assert_allclose(PairLoss(LossConfig("per_device", **more), mesh)(IMAGE, TEXT), softmax, rtol=1e-6)


def test_one_device_gives_the_loss_of_several():
    """With padding too, where a group is half of it and another nothing else."""
    loss = PairLoss(LossConfig("per_device", device_batch=4), MESH)
    groups = [slow_softmax_pairs(IMAGE[k : k + 4], TEXT[k : k + 4], 20, 0) for k in (0, 4, 8)]
    np.testing.assert_allclose(loss(IMAGE, TEXT), np.mean(groups), rtol=1e-5)
    padded = (4 * groups[0] + 2 * slow_softmax_pairs(IMAGE[4:6], TEXT[4:6], 20, 0)) / 6
    np.testing.assert_allclose(loss(IMAGE, TEXT, mask=jnp.arange(12) < 6), padded, rtol=1e-5)
    with pytest.raises(ValueError, match="12 pairs on each of 1 devices do not divide into groups of 5"):
        PairLoss(LossConfig("per_device", device_batch=5), MESH)(IMAGE, TEXT)


@pytest.mark.parametrize("kind", ["softmax", "per_device", "sigmoid"])
def test_padding_changes_no_kind(kind):
    loss = PairLoss(LossConfig(kind), MESH)
    np.testing.assert_allclose(loss(IMAGE, TEXT, mask=jnp.arange(12) < 7), loss(IMAGE[:7], TEXT[:7]), rtol=1e-5)


def test_only_what_is_learned_is_a_parameter():
    def parameters(**config):
        return set(nnx.to_pure_dict(nnx.state(PairLoss(LossConfig(**config), MESH), nnx.Param)))

    assert parameters() == parameters(kind="sigmoid", logit_bias=-10.0) == set()
    assert parameters(learned=True) == parameters(kind="per_device", learned=True) == {"log_scale"}
    assert parameters(kind="sigmoid", learned=True) == {"log_scale", "bias"}
    assert PairLoss(LossConfig(learned=True)).log_scale[...] == pytest.approx(np.log(20))  # as transformers stores it


def test_scale_and_bias_learn():
    """The gradient by scale and bias against differences of the definition."""
    model = PairLoss(LossConfig("sigmoid", logit_scale=10.0, logit_bias=-3.0, learned=True))
    gradient = nnx.grad(lambda model: model(IMAGE, TEXT))(model)
    step = 1e-5
    ends = [slow_sigmoid_pairs(IMAGE, TEXT, 10 * np.exp(sign * step), -3, 0) for sign in (1, -1)]
    assert gradient["log_scale"][...] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3)
    ends = [slow_sigmoid_pairs(IMAGE, TEXT, 10, -3 + sign * step, 0) for sign in (1, -1)]
    assert gradient["bias"][...] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3)


def test_a_scale_beyond_the_limit_counts_as_the_limit_and_can_come_back():
    model = PairLoss(LossConfig(logit_scale=20.0, largest_scale=30.0, learned=True))
    model.log_scale[...] = jnp.float32(np.log(50))
    assert model.logit_scale == pytest.approx(30)
    assert nnx.grad(lambda model: model(IMAGE, TEXT))(model)["log_scale"][...] > 0  # pairs of noise want it lower


@pytest.mark.parametrize("kind", ["softmax", "per_device"])
def test_random_embeddings_start_at_the_logarithm_of_the_batch(kind):
    image, text = (unit_rows(np.random.default_rng(seed), 64, 512) for seed in range(2))
    loss = PairLoss(LossConfig(kind, logit_scale=1.0), MESH)(image, text)
    assert loss == pytest.approx(np.log(64), abs=0.01)


def test_configurations_that_mean_nothing_are_refused():
    for wrong, message in (
        ({"logit_bias": -10.0}, "logit_bias must be 0 unless kind is sigmoid"),
        ({"logit_scale": 0.0}, "logit_scale must be > 0"),
        ({"margin": 2.0}, "margin must be a difference"),
        ({"learned": True, "logit_scale": 200.0}, "largest_scale must be at least the 200"),
        ({"kind": "softmax", "device_batch": 8}, "device_batch must be None, or >= 1 with per_device"),
    ):
        with pytest.raises(ValueError, match=message):
            LossConfig(**wrong)
    with pytest.raises(ValueError, match="did you mean 'sigmoid'"):
        replace_from_strings(LossConfig(), ["kind=sigmoidal"])
    with pytest.raises(ValueError, match="needs the mesh"):
        PairLoss(LossConfig("per_device"))
    for loss, more in ((per_device_softmax, {}), (sigmoid_ring, {"logit_bias": 0.0})):
        with pytest.raises(ValueError, match=r"images \(12, 16\) and texts \(11, 16\) are no pairs"):
            loss(IMAGE, TEXT[:11], mesh=MESH, logit_scale=20.0, **more)
