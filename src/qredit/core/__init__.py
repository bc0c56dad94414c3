"""The language: batch, stages and how they compose, objective, surrogates, reductions, schedules, J_Q."""
