import math

import keras
import numpy as np
import pytest
from keras import ops

from tests.training.data.chance import BACKEND, MANY, assert_share, many
from training.data.draws import Draws

pytestmark = pytest.mark.backends


class TestDraws:
    def test_seeds_depend_on_key_and_count_alone(self):
        one, two = Draws(3, 5), Draws(3, 5)
        first, second = (ops.convert_to_numpy(one.next()).tolist() for _ in range(2))
        assert first != second
        assert ops.convert_to_numpy(two.next()).tolist() == first
        assert ops.convert_to_numpy(two.next(ordered=False)).tolist() == second
        for part in (np.int64(5), np.uint8(5), ops.convert_to_tensor(5, "int32"), ops.convert_to_tensor(5, "uint8")):
            assert ops.convert_to_numpy(Draws(3, part).next()).tolist() == first

    def test_all_positions_and_counts_have_other_seeds(self):
        positions = [*range(60), *(2**power + step for power in (31, 32, 33, 40, 62) for step in (-1, 0, 1))]
        keys = [(seed, position) for seed in (0, 1) for position in positions] + [(), (0,), (0, 0, 0)]
        seeds = {tuple(ops.convert_to_numpy(d.next()).tolist()) for d in (Draws(*k) for k in keys) for _ in range(4)}
        # Sequences that were shifted against each other would share seeds.
        assert len(seeds) == 4 * len(keys)

    def test_the_two_numbers_of_a_seed_differ(self):
        """Otherwise half of its bits would say nothing new."""
        seeds = np.stack([ops.convert_to_numpy(Draws(0, position).next()) for position in range(20)])
        assert (seeds[:, 0] != seeds[:, 1]).all()

    @pytest.mark.skipif(BACKEND == "jax", reason="JAX has no integers of 64 bits")
    def test_large_tensors_count_in_full(self):
        for position in (2**31 + 1, 2**32 + 1, 2**40 + 1):
            seed = Draws(0, ops.convert_to_tensor(np.int64(position))).next()
            np.testing.assert_array_equal(ops.convert_to_numpy(seed), ops.convert_to_numpy(Draws(0, position).next()))

    def test_one_bit_of_the_key_changes_half_of_the_seed(self):
        def bits(*key):
            seed = ops.convert_to_numpy(Draws(*key).next()).astype("uint32")
            return np.unpackbits(seed.view("uint8"))

        changed = [bits(0, i) != bits(0, i ^ (1 << bit)) for i in range(10) for bit in range(0, 40, 4)]
        assert_share(np.concatenate(changed), 0.5)

    def test_draws_of_neighbours_are_independent(self):
        values = many(
            lambda draws: ops.stack([keras.random.uniform((1,), dtype="float32", seed=draws)[0] for _ in range(3)])
        )
        # 20 equally likely bins have a chi-square of mean 19 and variance 38.
        counts = np.histogram(values[:, 0], 20, (0, 1))[0]
        assert ((counts - MANY / 20) ** 2).sum() / (MANY / 20) < 19 + 5 * math.sqrt(38)
        pairs = [(values[1:, 0], values[:-1, 0]), (values[1:, 0], values[:-1, 1]), (values[:, 0], values[:, 1])]
        pairs += [(values[1:, 1], values[:-1, 2]), (values[:, 1], values[:, 2])]
        for one, two in pairs:
            assert abs(np.corrcoef(one, two)[0, 1]) < 5 / math.sqrt(MANY)
