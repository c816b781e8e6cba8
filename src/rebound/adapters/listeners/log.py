"""placeholder: being written"""
from typing import Any
def LogListener(logger: Any) -> Any:
    return lambda event: None
def guarded(f: Any, logger: Any) -> Any:
    return f
