"""The one error family of Buttress: every mistake of the user's that we detect is one of these, told in one line."""


class ButtressError(Exception):
    """Something the user can put right. The message says what was wrong, where, and what to do next.

    exit_code: what a command that ends with it returns.
    """

    exit_code = 2


class SourceError(ButtressError):
    """A collection of images cannot be opened or read as asked."""


class PolicyError(ButtressError):
    """An augmentation policy is malformed."""


class StoreError(ButtressError):
    """A reinforcement is damaged, of another format, or does not belong to the data in hand."""


class ModelError(ButtressError):
    """A model, its weights or its classes do not fit."""


class SettingsError(ButtressError):
    """A flag, a recipe key or a setting is wrong."""


class LabellingError(ButtressError):
    """The teacher's labelling cannot start or go on."""


class TrainingError(ButtressError):
    """A training run cannot start or go on."""
