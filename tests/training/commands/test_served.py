import numpy as np
import pytest

from training.commands import served


def test_failure_is_told(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)does not predict. Received.*does not exist"):
        served.predict_in_new_process(tmp_path / "none", np.zeros((1, 2)))
