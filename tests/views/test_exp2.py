import math
import struct
from decimal import Decimal, localcontext
from hashlib import sha256
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttress.views.exp2 import TABLE, exp2, log2

DIGEST = "f7dfc49b53cbb32e7a359f99208880a106dffbadb3d262a083a34ba3d46e47a1"


def test_table_has_the_committed_bytes():
    data = (files("buttress.views") / "exp2_table.f64").read_bytes()
    assert sha256(data).hexdigest() == DIGEST
    assert struct.pack("<4097d", *TABLE) == data


def test_table_is_the_nearest_double_to_each_power():
    with localcontext() as context:
        context.prec = 50
        step = Decimal(2) ** (Decimal(1) / 4096)
        exact = Decimal(1)
        for entry in TABLE:
            assert entry == float(exact)
            exact *= step


@given(st.floats(-50, 50))
def test_exp2_is_close_to_the_library(exponent):
    assert exp2(exponent) == pytest.approx(math.pow(2.0, exponent), rel=5e-9)


@given(st.floats(2.0**-50, 2.0**50))
def test_log2_is_close_to_the_library_and_exp2s_inverse(value):
    assert log2(value) == pytest.approx(math.log2(value), abs=6e-9)
    assert exp2(log2(value)) == pytest.approx(value, rel=1e-13)


@pytest.mark.parametrize("exponent", [-3, 0, 1, 7])
def test_whole_exponents_are_exact(exponent):
    assert exp2(float(exponent)) == 2.0**exponent
    assert log2(2.0**exponent) == exponent
