"""Models made smaller or elastic."""
