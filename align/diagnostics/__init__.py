"""How an objective pulls: gradient entanglement of pairs, exactly, while they train and afterwards.

Yuan et al., ICLR 2025, arXiv:2410.13828: a step on ``-(d_w grad logp_w - d_l grad logp_l)`` moves each log-probability
along both gradients, so that their inner product decides whether chosen and rejected rise or fall together.
"""
