"""An event loop that is made when a task or a cell first awaits, and then stays."""

from __future__ import annotations

from collections.abc import Coroutine
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio

_CLEANUP_TIMEOUT_S: Final = 1.0


class Coroutines:
    """Runs coroutines one after another on one loop, so that what they start lives on between them.

    Example:
        >>> async def double(x):
        ...     return x * 2
        >>> coroutines = Coroutines()
        >>> coroutines.run(double(21))
        42
        >>> coroutines.close()
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._interrupted = False

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end and return its value; an interrupt cancels it."""
        import asyncio

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        self._task = task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(task)
        except asyncio.CancelledError as error:
            if self._interrupted:
                raise KeyboardInterrupt().with_traceback(error.__traceback__) from None
            raise
        except KeyboardInterrupt:
            if not task.done():
                task.cancel()
                self._loop.run_until_complete(asyncio.wait([task], timeout=_CLEANUP_TIMEOUT_S))
            raise
        finally:
            self._task, self._interrupted = None, False

    def interrupt(self, frame: FrameType | None) -> bool:
        """Cancel what runs, if an interrupt came while the loop itself was at work (for a signal handler).

        An exception raised there would lose a callback, and the task that waits
        for it would wait for good. `asyncio.Runner` takes the same care. A
        second interrupt of the same run is not held back.

        Args:
            frame: What was interrupted.

        Returns:
            Whether it will end so; if not, the handler is to raise `KeyboardInterrupt`.
        """
        if self._loop is None or self._task is None or self._interrupted:
            return False
        import asyncio

        in_loop = frame is not None and frame.f_code.co_filename.startswith(asyncio.__path__[0])
        if asyncio.current_task(self._loop) is not None and not in_loop:
            return False
        if not self._task.cancel():
            return False
        self._interrupted = True
        self._loop.call_soon_threadsafe(_wake_up)
        return True

    def close(self) -> None:
        """Cancel what still runs, let it clean up, and close the loop, as ``asyncio.run`` does."""
        if self._loop is None:
            return
        import asyncio

        loop, self._loop = self._loop, None
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _wake_up() -> None:
    """Let the loop look at its tasks again."""
