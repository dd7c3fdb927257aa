"""What several test files need around them."""

from __future__ import annotations

import signal

import pytest

# Jobs in the background begin with interrupts ignored; tests that interrupt need them heard, here and in their children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="module")
def one_thread():
    """torch on one thread, so that other work on the machine does not slow small networks down."""
    import torch  # most files need none

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
