from buttress.commands.evaluate import evaluate as evaluate
from buttress.commands.export import export as export
from buttress.commands.fold import fold as fold
from buttress.commands.inspect import inspect as inspect
from buttress.commands.predict import predict as predict
from buttress.commands.refine import refine as refine
from buttress.commands.reinforce import reinforce as reinforce
from buttress.commands.report import report as report
from buttress.commands.train import train as train
from buttress.commands.verify import verify as verify
from buttress.errors import ButtressError as ButtressError
from buttress.loading.dataset import ReinforcedDataset as ReinforcedDataset
from buttress.runs.run import Run as Run
from buttress.runs.run import open_run as open_run
from buttress.sources import ArraySource as ArraySource
from buttress.sources import Relabelled as Relabelled
from buttress.sources import Subset as Subset
from buttress.sources import open_source as open_source
from buttress.store.reader import Reinforcement as Reinforcement
from buttress.store.reader import open_reinforcement as open_reinforcement
from buttress.teachers.teacher import TeacherSpec as TeacherSpec
from buttress.teachers.teacher import open_teacher as open_teacher
from buttress.views.policy import Policy as Policy
from buttress.views.presets import preset as preset
from buttress.views.render import Renderer as Renderer

__version__: str
