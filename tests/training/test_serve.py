import numpy as np
import pytest

from training import serve


def test_failure_is_told(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)does not predict. Received.*does not exist"):
        serve.predict_in_new_process(tmp_path / "none", np.zeros((1, 2)))
