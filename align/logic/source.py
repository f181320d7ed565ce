"""A compiled loss written out: as torch code to read and copy, and as LaTeX."""

from textwrap import indent

from align.logic.circuit import Circuit, Factor, Number, Product, Sum, ratio
from align.logic.formula import Atom
from align.logic.structure import Structure

_LOG1MEXP = '''

def log1mexp(x):
    """log(1 - e^x) for x <= 0; the tangent at -1e-8 above it, so that its gradient stays finite."""
    bound, slope = math.log(-math.expm1(-1e-8)), math.exp(-1e-8) / math.expm1(-1e-8)
    inside = x.clamp(max=-1e-8)
    near = inside > -math.log(2)
    accurate_near_0 = torch.log(-torch.expm1(torch.where(near, inside, -math.log(2))))
    accurate_below = torch.log1p(-torch.exp(torch.where(near, -math.log(2), inside)))
    return torch.where(x > -1e-8, bound + slope * (x + 1e-8), torch.where(near, accurate_near_0, accurate_below))

'''
_LINKS = {
    "logistic": "-F.logsigmoid(beta * (rho - margin))",
    "squared": "(rho - margin - 1 / (2 * beta)).square()",
    "hinge": "torch.relu(beta - (rho - margin))",
}


def torch_source(structure: Structure, link: str = "logistic", beta: float = 1.0, margin: float = 0.0) -> str:
    """Return a function ``loss`` of log-probabilities, one tensor for each atom, that needs nothing but torch.

    Examples:
        >>> from align.logic.formula import L, W
        >>> print(torch_source(Structure.of(L >> W, W | L, W & L)))  # doctest: +ELLIPSIS
        import torch
        from torch.nn import functional as F
        <BLANKLINE>
        <BLANKLINE>
        def loss(log_w, log_l, beta=1.0, margin=0.0):
        ...
    """
    top, bottom = ratio(structure)
    used = [atom for atom in structure.atoms if atom.model != "Const"]
    if not used:
        raise ValueError("the log-ratio depends on no probability: it is a constant")
    if len({variable(atom) for atom in used}) < len(used):
        raise ValueError("two atoms differ in capitals alone, which names in code do not show: rename one")
    arguments = ", ".join(variable(atom) for atom in used)
    needs = any(_has_negation(side) for side in (top, bottom))
    has_constant = len(used) < len(structure.atoms)
    body = [
        f'"""Loss of each pair, from log-probabilities: {_table(used)}."""',
        f"above = {_code(top, variable(used[0]))}",
        f"below = {_code(bottom, variable(used[0]))}",
        "rho = above - below",
        f"return {_LINKS[link]}",
    ]
    imports = ["import math", ""] if needs or has_constant else []
    head = [*imports, "import torch", *(["from torch.nn import functional as F"] if link == "logistic" else []), ""]
    written = "\n".join(head) + (_LOG1MEXP if needs else "\n")
    return (
        written + f"\ndef loss({arguments}, beta={beta}, margin={margin}):\n" + indent("\n".join(body), "    ") + "\n"
    )


def variable(atom: Atom) -> str:
    """Return what an atom's log-probability is called in code: ``log_w``, ``log_ref_l``."""
    if atom.model == "M" and atom.response is not None:
        return f"log_{atom.response}"
    return f"log_{atom.model.lower()}" + ("" if atom.response is None else f"_{atom.response}")


def _table(atoms: list[Atom]) -> str:
    return ", ".join(f"{variable(atom)} of {atom}" for atom in atoms)


def _has_negation(node: Circuit) -> bool:
    if isinstance(node, Factor):
        return not node.holds and node.atom.model != "Const"
    return any(_has_negation(part) for part in getattr(node, "parts", ()))


def _code(node: Circuit, like: str) -> str:
    """Return code for the logarithm of a circuit's value."""
    if isinstance(node, Number):
        return f"torch.zeros_like({like})"
    if isinstance(node, Factor):
        return _factor(node, like)
    assert isinstance(node, Product | Sum)
    parts = [_code(part, like) for part in node.parts]
    if isinstance(node, Product):
        return " + ".join(parts)
    joined = parts[0]
    for part in parts[1:]:
        joined = f"torch.logaddexp({joined}, {part})"
    return joined


def _factor(node: Factor, like: str) -> str:
    if node.atom.model == "Const":
        share = float(node.atom.response or 0)
        return f"torch.full_like({like}, math.log({share if node.holds else 1 - share!r}))"
    return variable(node.atom) if node.holds else f"log1mexp({variable(node.atom)})"


# ---- LaTeX -----------------------------------------------------------------------------------------------------------

_LATEX_LINKS = {
    "logistic": r"-\log\sigma\left(\beta\left(\rho - \gamma\right)\right)",
    "squared": r"\left(\rho - \gamma - \tfrac{1}{2\beta}\right)^2",
    "hinge": r"\max\left(0, \beta - \left(\rho - \gamma\right)\right)",
}


def latex_source(structure: Structure, link: str = "logistic", margin: float = 0.0) -> str:
    r"""Return the loss and its log-ratio as LaTeX; without a margin, gamma is left out.

    Examples:
        >>> from align.logic.formula import L, W
        >>> print(latex_source(Structure.of_sides(W & ~L, L & ~W)))
        \ell = -\log\sigma\left(\beta\rho\right), \qquad \rho = \log\frac{p_{w}(1 - p_{l})}{p_{l}(1 - p_{w})}
    """
    loss = _LATEX_LINKS[link]
    if not margin:
        loss = loss.replace(r"\left(\rho - \gamma\right)", r"\rho").replace(r"\rho - \gamma", r"\rho")
    top, bottom = ratio(structure)
    return rf"\ell = {loss}, \qquad \rho = \log\frac{{{_latex(top)}}}{{{_latex(bottom)}}}"


def _latex(node: Circuit) -> str:
    if isinstance(node, Number):
        return str(node.value)
    if isinstance(node, Factor):
        return _letter(node.atom) if node.holds else f"1 - {_letter(node.atom)}"
    assert isinstance(node, Product | Sum)
    if isinstance(node, Sum):
        return " + ".join(f"({_latex(part)})" if _is_negation(part) else _latex(part) for part in node.parts)
    bracketed = (isinstance(part, Sum) or _is_negation(part) for part in node.parts)
    return "".join(f"({_latex(p)})" if b else _latex(p) for p, b in zip(node.parts, bracketed, strict=True))


def _is_negation(node: Circuit) -> bool:
    return isinstance(node, Factor) and not node.holds


def _letter(atom: Atom) -> str:
    if atom.model == "Const":
        return str(atom.response)
    model = {"M": "", "Ref": r"\mathrm{ref}"}.get(atom.model, rf"\mathrm{{{atom.model}}}")
    index = ",".join(part for part in (model, atom.response or "") if part)
    return f"p_{{{index}}}"
