"""Teacher URIs -> class probabilities."""

from buttress.teachers.ensemble import Ensemble, EnsembleSpec
from buttress.teachers.teacher import Teacher, TeacherSpec, open_teacher

__all__ = ["Ensemble", "EnsembleSpec", "Teacher", "TeacherSpec", "open_teacher"]
