"""Every error that wsipipe raises on purpose, each one line: expected, got, where, what to do.

WsipipeError
├── UsageError        (ValueError)         the command line or a config file asks for something impossible
├── SlideError        (ValueError)         this slide cannot be processed
│   ├── SlideOpenError    (OSError)        it cannot be opened
│   ├── SlideReadError    (OSError)        it opened, but pixels cannot be read
│   └── ScaleError                         its mpp is missing, implausible or contradictory
├── ModelError        (RuntimeError)       a model cannot be loaded, or returned something unusable
│   └── CheckpointError                    a weights file is missing, corrupt or of another kind
├── OutputError       (OSError)            the output folder cannot be used
│   ├── BlockFileError                     an intermediate file is missing or damaged; the block is redone
│   ├── LockedError                        another run is writing there
│   └── RunKeyError                        it holds results of other parameters
├── VerifyError       (ValueError)         a finished folder breaks its promises
└── MissingExtraError (ImportError)        an optional package is needed
"""


class WsipipeError(Exception):
    """Base of all errors below; its text is one line for the user."""


class UsageError(WsipipeError, ValueError):
    """The command line or a config file asks for something impossible."""


class SlideError(WsipipeError, ValueError):
    """This slide cannot be processed; others can."""


class SlideOpenError(SlideError, OSError):
    """The file is not a slide, or cannot be opened."""


class SlideReadError(SlideError, OSError):
    """The slide opened, but pixels cannot be read."""


class ScaleError(SlideError):
    """The slide's mpp is missing, implausible or contradictory."""


class ModelError(WsipipeError, RuntimeError):
    """A model cannot be loaded, or returned something unusable."""


class CheckpointError(ModelError):
    """A weights file is missing, corrupt or of another kind."""


class OutputError(WsipipeError, OSError):
    """The output folder cannot be used."""


class BlockFileError(OutputError):
    """An intermediate file is missing or damaged; the block must be extracted again."""


class LockedError(OutputError):
    """Another run is writing into this folder."""


class RunKeyError(OutputError):
    """The folder holds results of another slide, model or parameter set."""


class VerifyError(WsipipeError, ValueError):
    """A finished folder breaks its promises."""


class MissingExtraError(WsipipeError, ImportError):
    """An optional package is needed and not installed."""
