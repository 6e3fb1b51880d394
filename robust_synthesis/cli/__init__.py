"""The command line. Thin: every verb parses, calls the library, and prints."""
