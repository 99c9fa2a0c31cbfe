"""Say what a command prints in the user's language: English, or Italian by the catalogue it/LC_MESSAGES/clipita.po."""
