"""What watches and steers a run: the guide of q, the collapse guard, validation, records.

They ask for what `qredit.engine.protocols` names, and never hold a trainer.
"""
