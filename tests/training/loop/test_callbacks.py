import math
from types import SimpleNamespace

from training.loop.callbacks import SaveCheckpoints


def test_epoch_without_a_figure_is_never_the_best():
    """As a mean over classes of which none was met."""
    log = SimpleNamespace(history=[])
    saver = SaveCheckpoints(None, None, log, SimpleNamespace(check=lambda: None), 1, "val_mean_iou")
    best = []
    for step, value in enumerate((math.nan, 0.2, math.nan, 0.5, 0.4)):
        log.history.append({"step": step, "val_mean_iou": value})
        saver.on_epoch_end(step)
        best.append(saver.best)
    assert best == [0, 1, 1, 3, 3]
