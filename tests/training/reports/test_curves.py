from training.reports.curves import panels_of
from training.reports.read import Run


def test_every_number_is_a_point_zero_too():
    history = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.0, "val_loss": 0.25}, {"epoch": 3, "loss": None}]
    run = Run(name="a", config={}, system={}, history=history, metrics={}, pictures={}, series=[])
    expected = [("a", "training", (1, 2), (0.5, 0.0)), ("a", "validation", (2,), (0.25,))]
    assert panels_of([run]) == {"loss": expected}
