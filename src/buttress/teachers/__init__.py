"""Teacher URIs -> class probabilities."""

from buttress.teachers.teacher import Teacher, TeacherSpec, open_teacher

__all__ = ["Teacher", "TeacherSpec", "open_teacher"]
