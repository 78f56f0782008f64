"""An OpenAI-compatible server on top of an engine: pip install 'bitnet-engine[serve]'.

    bitnet serve model.gguf

In Python, `create_app(engine)` gives an ASGI application, and `serve(engine)` runs it until Ctrl-C or SIGTERM.
"""

from ..errors import BitnetError

try:
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as _error:
    raise BitnetError(
        f"the server needs starlette and uvicorn ({_error.name} is missing): pip install 'bitnet-engine[serve]'"
    ) from _error

from .app import create_app
from .run import serve
from .settings import Settings

__all__ = ["Settings", "create_app", "serve"]
