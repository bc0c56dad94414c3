"""What every folder may use: errors, seeds, files, safe text, numbers in words."""
