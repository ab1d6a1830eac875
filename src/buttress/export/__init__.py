"""Write a finished run for others: no buttress is needed to read what comes out."""
