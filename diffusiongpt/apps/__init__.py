"""The doors: ways to use the library from outside Python. Nothing else imports this."""
