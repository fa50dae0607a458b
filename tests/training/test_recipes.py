from training import recipes


def test_learning_rate_scales_with_the_batch():
    schedule = recipes.QUICKSTART.pretraining
    assert schedule.lr == schedule.base_lr * schedule.batch_size / 256


def test_with_epochs():
    schedule = recipes.Schedule(epochs=20, warmup_epochs=5, batch_size=1, base_lr=1, weight_decay=0, betas=(0.9, 0.95))
    assert (schedule.with_epochs(40).epochs, schedule.with_epochs(40).warmup_epochs) == (40, 5)
    assert (schedule.with_epochs(4).epochs, schedule.with_epochs(4).warmup_epochs) == (4, 2)
    assert (schedule.with_epochs(1).epochs, schedule.with_epochs(1).warmup_epochs) == (1, 0)
