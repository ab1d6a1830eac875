import pytest
import torch
from torch import nn

from buttress.errors import ModelError, SettingsError
from buttress.weights.levels import Level, Levelled, levelled, move, set_level


class Dial(nn.Module, Levelled):
    level_kind = "keep"

    def set_level(self, point, owner):
        owner.where = point


def model():
    return nn.Sequential(nn.Sequential(Dial()), nn.ReLU())


@pytest.mark.parametrize("text", ["keep=0.25", "at=0.5", "at=0.2/0.3", "at=0+1", "bits=4", "width=0.375"])
def test_a_level_is_read_as_it_is_written(text):
    assert str(Level.parse(text)) == text
    assert Level.parse(text) == Level.parse(str(Level.parse(text)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.25", "expected at=0.5"),
        ("kep=0.25", "did you mean keep"),
        ("keep=", "'' is not a number"),
        ("keep=half", "'half' is not a number"),
        ("keep=nan", "expected finite numbers"),
        ("keep=0.1+0.2", "keep takes one number"),
        ("bits=4/5", "bits takes one number"),
    ],
)
def test_what_is_no_level_is_told(text, message):
    with pytest.raises(SettingsError, match=message) as told:
        Level.parse(text)
    assert "\n" not in str(told.value)


def test_a_part_moves_with_its_owner_in_hand():
    net = model()
    assert [part.level_kind for _, part in levelled(net)] == ["keep"]
    set_level(net, keep=0.25)
    assert net[0].where == (0.25,)
    move(net, Level.parse("keep=0.5"))
    assert net[0].where == (0.5,)


def test_a_level_that_is_not_there_is_refused():
    with pytest.raises(ModelError, match="level bits=4: this model has levels of keep"):
        set_level(model(), bits=4)
    with pytest.raises(ModelError, match=r"level keep=0.5: this model has no levels"):
        set_level(nn.ReLU(), keep=0.5)
    with pytest.raises(SettingsError, match="give one of at, keep, width, bits"):
        set_level(model(), keep=0.5, bits=4)
    with pytest.raises(SettingsError, match="give one of"):
        set_level(model())
    with pytest.raises(SettingsError, match="of several points"):
        move(model(), Level.parse("at=0+1"))


def test_torch_is_not_needed_to_read_a_level():
    assert Level.of("keep", 0.5).value == 0.5
    assert torch.tensor(Level.of("at", (0.1, 0.2)).points).shape == (1, 2)
