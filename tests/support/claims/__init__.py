"""What is claimed of the credit library, a file for each family; joined in tests/support/battery.py."""
