"""Coverage-guided fuzzing of everything that reads what others may have written: ``python -m tests.fuzz``."""
