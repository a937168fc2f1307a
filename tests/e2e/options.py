"""What the runner was told."""


class Options:
    """Set once, before any scenario runs."""
    weir = "build-test/weir"
    fake = "build-test/tests/model_fake"
    valgrind = False
    strict = False  # hold the gateway to its promised times
    slow = 1.0  # how much longer to wait for anything
    workers = None
