"""What people said about pictures, kept in a database."""
