"""A server that listens until its process is asked to end, and then returns, so that the studio behind it is closed."""

from __future__ import annotations

from types import FrameType

import uvicorn

from diffusiongpt.errors import SettingsError


class Listener(uvicorn.Server):
    """uvicorn, but it returns after a signal.

    uvicorn's own handler has each signal raised once more at the end, and SIGTERM would kill the process before
    anything is closed.
    """

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; at the second signal, at once."""
        del sig, frame
        self.force_exit = self.should_exit
        self.should_exit = True

    def listen(self) -> None:
        """Serve until the process is asked to end.

        Raises:
            SettingsError: If the address cannot be listened on.
        """
        try:
            self.run()
        except SystemExit as error:
            # uvicorn logged why
            raise SettingsError(
                f"could not listen on {self.config.host}:{self.config.port}",
                hint="Choose another --port, or see the log.",
            ) from error
