import numpy as np

import keras_cnv2
from tests.training.small import finetuning
from training.loop.optimizer import new_optimizer


def test_clipping_reaches_the_optimizer():
    assert new_optimizer(finetuning(clip_norm=0.5), 4).global_clipnorm == 0.5
    muon = new_optimizer(finetuning(optimizer="muon", layer_decay=0.5, ema=0.9), 4)
    assert (type(muon), muon.layer_decay, muon.ema_momentum) == (keras_cnv2.LayerDecayMuon, 0.5, 0.9)


def test_schedule_counts_the_optimizer_s_steps():
    recipe = finetuning(epochs=10, warmup_epochs=2, base_lr=0.3, min_lr=1e-3, accumulation=4)
    schedule = new_optimizer(recipe, steps_per_epoch=20)._learning_rate
    lr = 0.3 * 8 / 256
    expected = {0: 0, 5: lr / 2, 10: lr, 30: (lr + 1e-3) / 2, 50: 1e-3}
    np.testing.assert_allclose([float(schedule(step)) for step in expected], [*expected.values()], rtol=1e-5, atol=1e-9)
