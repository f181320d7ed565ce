"""Free memory from files as Linux writes them, and a speed that is one."""

import os

import pytest
import torch

from align.models.machine import Speed, free_memory, measure_speed, memory_left

CPU = torch.device("cpu")
GIB = 2**30


def write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def root(tmp_path):
    """A machine of 16 GiB with 10 available, and a process that holds 1 GiB."""
    write(tmp_path, proc__meminfo="MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 10485760 kB\n")
    pages = GIB // os.sysconf("SC_PAGE_SIZE")
    write(tmp_path, proc__self__statm=f"{2 * pages} {pages} 0 0 0 0 0\n")
    return tmp_path


def test_without_a_limit_it_is_what_the_machine_has(root):
    memory = free_memory(CPU, root)
    assert (memory.available, memory.total, memory.source) == (11 * GIB, 16 * GIB, "MemAvailable")


def test_a_control_group_of_the_second_kind(root):
    group = root / "sys/fs/cgroup/outer/inner"
    group.mkdir(parents=True)
    write(root, proc__self__cgroup="0::/outer/inner\n")
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text(f"{GIB}\n")
    assert free_memory(CPU, root).source == "MemAvailable"
    (group.parent / "memory.max").write_text(f"{6 * GIB}\n")  # the limit of a group above holds too
    (group.parent / "memory.current").write_text(f"{4 * GIB}\n")
    (group.parent / "memory.stat").write_text(f"anon 1\ninactive_file {GIB}\n")
    memory = free_memory(CPU, root)
    # 6 - 4 are left, 1 of the 4 is cached files, 1 is this process.
    assert (memory.available, memory.total, memory.source) == (4 * GIB, 6 * GIB, "limit of the control group")


def test_a_control_group_of_the_first_kind(root):
    group = root / "sys/fs/cgroup/memory/box"
    group.mkdir(parents=True)
    write(root, proc__self__cgroup="12:cpu,cpuacct:/x\n9:memory:/box\n")
    (group / "memory.usage_in_bytes").write_text(f"{GIB}\n")
    (group / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # none
    assert free_memory(CPU, root).source == "MemAvailable"
    (group / "memory.limit_in_bytes").write_text(f"{3 * GIB}\n")
    assert free_memory(CPU, root).available == 3 * GIB


def test_more_than_the_limit_in_use_leaves_none(root):
    group = root / "sys/fs/cgroup"
    group.mkdir(parents=True)
    write(root, proc__self__cgroup="0::/\n", proc__self__statm="0 0 0 0 0 0 0\n")
    (group / "memory.max").write_text("100\n")
    (group / "memory.current").write_text("200\n")
    assert free_memory(CPU, root).available == 0


def test_a_machine_that_has_no_such_files_says_what_it_has(tmp_path):
    memory = free_memory(CPU, tmp_path)
    assert memory.available == memory.total > 0
    assert memory.source == "all memory of the machine"


def test_what_is_left_is_shared_and_what_this_process_holds_is_gone(root):
    assert memory_left(CPU, root=root).available == 10 * GIB
    memory = memory_left(CPU, sharers=4, root=root)
    assert (memory.available, memory.total) == (10 * GIB // 4, 16 * GIB)


def test_this_machine_has_memory():
    memory = free_memory(CPU)
    assert 0 < memory.available <= memory.total


def test_a_speed_is_that_of_the_product(monkeypatch):
    """Against a clock that moves by half a second a look: every repetition takes that long."""
    ticks = iter(range(10_000))
    monkeypatch.setattr("align.models.machine.time.perf_counter", lambda: next(ticks) / 2)
    speed = measure_speed(CPU, torch.float32, (8, 16, 32))
    assert speed.flops == 2 * 8 * 16 * 32 / 0.5
    assert speed.traffic == 3 * 4 * 2**25 / 0.5
    assert speed.threads == torch.get_num_threads()


def test_of_two_moments_the_better_counts():
    slow, fast = (Speed(flops=f, traffic=t, dtype=torch.float32, threads=2) for f, t in ((1.0, 9.0), (5.0, 3.0)))
    assert slow.best(fast) == Speed(flops=5.0, traffic=9.0, dtype=torch.float32, threads=2)
