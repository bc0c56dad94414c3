"""`qredit search`: a tree search over the steps of rationales, whose values label them for a process reward model."""
