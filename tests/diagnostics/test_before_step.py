from types import SimpleNamespace

import pytest

from align.diagnostics.before_step import before_step


class Engine:
    def __init__(self, said):
        self.said = said

    def step(self):
        self.said.append("step")


def test_elsewhere_the_call_comes_after_the_backward():
    said = []
    with before_step(SimpleNamespace(), lambda: said.append("call")):
        said.append("backward")
    assert said == ["backward", "call"]


@pytest.mark.parametrize("steps", [0, 1])
def test_deepspeed_steps_within_its_backward_and_accumulates_without(steps):
    said = []
    engine = Engine(said)
    with before_step(
        SimpleNamespace(deepspeed_engine_wrapped=SimpleNamespace(engine=engine)), lambda: said.append("call")
    ):
        said.append("backward")
        for _ in range(steps):
            engine.step()
    assert said == ["backward", "call", "step"][: 2 + steps]
    engine.step()
    assert said[-1] == "step"
    assert said.count("call") == 1


def test_nothing_is_called_after_an_error():
    said = []
    engine = Engine(said)
    wrapped = SimpleNamespace(deepspeed_engine_wrapped=SimpleNamespace(engine=engine))
    with pytest.raises(RuntimeError), before_step(wrapped, lambda: said.append("call")):
        raise RuntimeError
    assert said == []
    assert "step" not in vars(engine)
