"""Does the shaping help? A study runner: credit rules and potentials against plain GRPO, at equal generated tokens.

`PLAN.md` says what is compared, how arms are tuned and when a study stops; it was written before the first measured run.
"""
