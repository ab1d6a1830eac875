"""Buttress makes small vision models strong."""
