"""GPUs that are planned on: what options say, and how long collectives take by hand."""

import pytest

from align.models.gpus import OPTIONS, Gpus


def test_one_node_is_as_fast_as_its_own_links():
    gpus = Gpus(count=8, node_bandwidth=100.0, network_bandwidth=1.0)
    assert gpus.nodes == 1
    assert gpus.gathering(800e9) == pytest.approx(700 / 100)  # 7 of 8 parts come from others


def test_between_nodes_all_adapters_of_a_node_bring_what_it_lacks():
    gpus = Gpus(count=16, node_bandwidth=1000.0, network_bandwidth=10.0)
    assert gpus.nodes == 2
    assert gpus.gathering(160e9) == pytest.approx(80 / (8 * 10))  # half of it, over 8 adapters
    fast = Gpus(count=16, node_bandwidth=10.0, network_bandwidth=1000.0)
    assert fast.gathering(160e9) == pytest.approx(150 / 10)  # 15 of 16 parts, over the slower link


def test_one_gpu_sends_nothing():
    assert Gpus(count=1).gathering(1e12) == 0


def test_computing_reaches_a_share_of_the_peak():
    assert Gpus(count=1, tflops=100.0, utilisation=0.5).flops == 50e12


@pytest.mark.parametrize("name", list(OPTIONS))
def test_what_cannot_be_names_its_option(name):
    wrong = 0 if name in ("count", "per_node") else -1.0
    with pytest.raises(ValueError, match=f"{OPTIONS[name]} must be more than 0, got {wrong:g}"):
        Gpus(**{"count": 1, name: wrong})


def test_a_share_is_at_most_1():
    with pytest.raises(ValueError, match=r"--utilisation is a share of the peak, at most 1, got 1\.5"):
        Gpus(count=1, utilisation=1.5)
    with pytest.raises(ValueError, match="--gpu-memory must be more than 0, got nan"):
        Gpus(count=1, memory=float("nan"))


def test_options_without_a_number_of_gpus():
    nothing = dict.fromkeys(OPTIONS)
    assert Gpus.of(nothing) is None
    assert Gpus.of({**nothing, "count": 8, "memory": 40.0}) == Gpus(count=8, memory=40.0)
    with pytest.raises(ValueError, match=r"--gpu-memory, --utilisation without --gpus: say how many"):
        Gpus.of({**nothing, "memory": 40.0, "utilisation": 0.3})


def test_nodes_are_full():
    assert Gpus(count=16).nodes == 2
    assert Gpus(count=3).nodes == 1
    with pytest.raises(ValueError, match="do not fill nodes of 8"):
        Gpus(count=9)
