"""Added loss terms, each with its own denominator."""
