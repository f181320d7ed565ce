"""The landscape, typed from the figure: rows that count above and below, cores, and fixtures."""

ROWS = ("TT", "TF", "FT", "FF")
# name: (top, bottom, weakest core, condition, additive, rho at w = 0.3 and l = 0.2)
SIXTEEN = {
    "CEUnl": ("TF", "TT FT FF", "M(w) & ~M(l)", "true", "false", -1.152679509938),
    "sCE": ("TT TF", "TT FT FF", "M(w)", "true", "M(w) & M(l)", -0.929535958624),
    "CE": ("TT TF", "FT FF", "M(w)", "true", "false", -0.847297860387),
    "l3": ("TF", "FT FF", "M(w)", "~(M(w) & M(l))", "false", -1.070441411701),
    "cUnl": ("TF", "TT FT", "~M(l)", "M(w) | M(l)", "false", 0.182321556794),
    "l20": ("TF FF", "TT FT FF", "~M(l)", "true", "~M(w) & ~M(l)", 0.051293294388),
    "fUnl": ("TF FF", "TT FT", "~M(l)", "true", "false", 1.386294361120),
    "ORPO": ("TF", "FT", "M(l) -> M(w)", "one_hot(M(w), M(l))", "false", 0.538996500733),
    "CPO": ("TT TF", "TT FT", "M(l) -> M(w)", "M(w) | M(l)", "M(w) & M(l)", 0.405465108108),
    "l14": ("TT TF FF", "TT FT", "M(l) -> M(w)", "true", "M(w) & M(l)", 1.458615022700),
    "cCPO": ("TT TF", "FT", "M(l) -> M(w)", "M(w) | M(l)", "false", 0.762140052047),
    "unCPO": ("TT TF FF", "FT", "M(l) -> M(w)", "true", "false", 1.815289966638),
    "qfUnl": ("TF FF", "FT FF", "M(l) -> M(w)", "~(M(w) & M(l))", "~M(w) & ~M(l)", 0.133531392625),
    "l5": ("TT TF FF", "TT FT FF", "M(l) -> M(w)", "true", "M(w) <-> M(l)", 0.123613955967),
    "bCPO": ("TT TF FF", "FT FF", "M(l) -> M(w)", "true", "~M(w) & ~M(l)", 0.205852054204),
    "cfUnl": ("TF FF", "FT", "M(l) -> M(w)", "~(M(w) & M(l))", "false", 1.742969305059),
}
EDGES = {
    "CEUnl": "sCE l3 cUnl l20",
    "sCE": "CE CPO l5",
    "l3": "CE ORPO qfUnl",
    "cUnl": "ORPO CPO fUnl",
    "l20": "qfUnl fUnl l5",
    "CE": "bCPO cCPO",
    "ORPO": "cfUnl cCPO",
    "CPO": "cCPO l14",
    "fUnl": "cfUnl l14",
    "qfUnl": "bCPO cfUnl",
    "l5": "bCPO l14",
    "bCPO": "unCPO",
    "cfUnl": "unCPO",
    "cCPO": "unCPO",
    "l14": "unCPO",
}
TWELVE = {
    "CEUnl": "l20 cUnl sCE",
    "l20": "fUnl qfUnl",
    "cUnl": "fUnl ORPO CPO",
    "sCE": "CE CPO",
    "fUnl": "cfUnl",
    "qfUnl": "cfUnl",
    "ORPO": "cfUnl cCPO",
    "CPO": "cCPO",
    "CE": "cCPO",
    "cfUnl": "unCPO",
    "cCPO": "unCPO",
}
REFERENCE_CORES = {
    "Ref(w) & M(l) -> M(w) & Ref(l)": "CPO l14",
    "Ref(w) & M(l) -> M(w)": "ORPO cCPO cfUnl unCPO",
    "Ref(w) & (M(l) | ~Ref(l)) -> M(w)": "qfUnl bCPO",
    "Ref(w) & (M(l) | ~Ref(l)) & (~M(w) | ~Ref(l)) -> M(w) & ~M(l)": "l5",
    "Ref(w) -> M(w)": "CE l3",
    "Ref(w) & (~M(w) | ~Ref(l)) -> M(w) & ~M(l)": "sCE",
    "Ref(w) -> ~M(l)": "cUnl fUnl",
    "Ref(w) & (M(l) | ~Ref(l)) -> M(w) & ~M(l)": "l20",
    "Ref(w) -> M(w) & ~M(l)": "CEUnl",
}


def pairs(edges):
    return {(below, above) for below, names in edges.items() for above in names.split()}
