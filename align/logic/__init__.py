"""What a loss means: propositional formulas to losses and back, and losses in the order of entailment.

Nothing here imports torch until a loss is compiled for training (:mod:`align.logic.compiled`) or traced
(:mod:`align.logic.trace`).
"""
