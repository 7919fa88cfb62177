"""What holds for all tests."""

import signal


def pytest_configure() -> None:
    """A shell makes what it starts in the background deaf to Ctrl-C, and so the programs that are tested with it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
